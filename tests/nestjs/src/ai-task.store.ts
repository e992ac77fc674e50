import { ConflictException, Injectable } from '@nestjs/common';
import type { AiTask, AiTaskState, AiTaskUpdate } from './ai-task.js';

/** Keeps the tasks in memory. Your implementation needs these three methods on top of your database. */
@Injectable()
export class AiTaskStore {
  readonly tasks = new Map<string, AiTask>();
  /** Called with each result, for example to store it in another database; it may fail. */
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

  /** After an error response the same update comes again, and must be carried out again. */
  async update(id: string, update: AiTaskUpdate): Promise<AiTask> {
    const task = this.tasks.get(id)!;
    // in a database: one conditional write, so that only one of two pipelines can claim the task
    if (update.state === 'in_progress' && task.state !== 'pending') throw new ConflictException('claimed already');
    task.state = update.state;
    if (update.state !== 'in_progress') await this.onResult(task, update);
    return task;
  }
}
