// The application under test: the module that users copy, and routes with which tests control and inspect it.
// Prints {"url"} once it listens on a free port of 127.0.0.1, and ends when its standard input does.
import 'reflect-metadata';
import { Body, Controller, Get, Module, Post } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { AiTaskModule } from './ai-task.module.js';
import type { AiTask } from './ai-task.js';
import { AiTaskStore } from './ai-task.store.js';

@Controller('control')
class ControlController {
  private failures = 0;
  private readonly results = new Map<string, { times: number; length: number; different: number; body: string }>();

  constructor(private readonly store: AiTaskStore) {
    store.onResult = async (task, update) => {
      const body = JSON.stringify(update);
      const seen = this.results.get(task._id) ?? { times: 0, length: 0, different: 0, body };
      seen.different += Number(seen.body !== body);
      seen.length = Array.isArray(update.result) ? update.result.length : 0;
      this.results.set(task._id, seen);
      if (this.failures > 0) {
        this.failures -= 1;
        throw new Error('the callback failed, after the state was stored');
      }
      seen.times += 1;
    };
  }

  @Post('tasks')
  queue(@Body() { count, model, state = 'pending' }: { count: number; model: string; state?: AiTask['state'] }) {
    const ids: string[] = [];
    for (let n = 0; n < count; n += 1) {
      const _id = (this.store.tasks.size + 1).toString(16).padStart(24, '0');
      const content = { text: `text ${_id}`, model };
      this.store.tasks.set(_id, { _id, type: 'text_embedding', state, content, createdAt: new Date().toISOString() });
      ids.push(_id);
    }
    return ids;
  }

  @Post('failing-callbacks')
  fail(@Body() { count }: { count: number }) {
    this.failures = count;
  }

  @Get()
  summary() {
    const states: Record<string, number> = {};
    for (const { state } of this.store.tasks.values()) states[state] = (states[state] ?? 0) + 1;
    const results = [...this.results.values()];
    return {
      states,
      failuresLeft: this.failures,
      lengths: [...new Set(results.map(({ length }) => length))],
      twice: results.filter(({ times }) => times > 1).length,
      different: results.filter(({ different }) => different).length,
    };
  }
}

@Module({ imports: [AiTaskModule], controllers: [ControlController] })
class AppModule {}

const app = await NestFactory.create(AppModule, { logger: ['warn'] });
await app.listen(0, '127.0.0.1');
process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${app.getHttpServer().address().port}` })}\n`);

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
