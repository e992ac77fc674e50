import { ConflictException, Injectable } from '@nestjs/common';
import type { AiTask, AiTaskState, AiTaskUpdate } from './ai-task.js';

/** Keeps the tasks in memory. Yours keeps them in your database: these three methods are all that is needed. */
@Injectable()
export class AiTaskStore {
  readonly tasks = new Map<string, AiTask>();
  /** What to do with a result; the store it belongs to may be another one, and may fail. */
  onResult: (task: AiTask, update: AiTaskUpdate) => Promise<void> = async () => {};

  async find(state: AiTaskState, limit: number): Promise<AiTask[]> {
    const found: AiTask[] = [];
    for (const task of this.tasks.values()) {
      if (task.state === state && found.push(task) >= limit) break;
    }
    return found; // oldest first
  }

  async exists(id: string): Promise<boolean> {
    return this.tasks.has(id);
  }

  /** The same update may come again after an error of ours: it must be carried out again. */
  async update(id: string, update: AiTaskUpdate): Promise<AiTask> {
    const task = this.tasks.get(id)!;
    // in a database: one conditional write, so that of two workers only one can claim it
    if (update.state === 'in_progress' && task.state !== 'pending') throw new ConflictException('claimed already');
    task.state = update.state;
    if (update.state !== 'in_progress') await this.onResult(task, update);
    return task;
  }
}
