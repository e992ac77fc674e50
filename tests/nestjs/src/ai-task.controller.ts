import {
  BadRequestException,
  Body,
  Controller,
  DefaultValuePipe,
  Get,
  NotFoundException,
  Param,
  ParseIntPipe,
  Patch,
  Query,
  UseGuards,
} from '@nestjs/common';
import type { AiTaskState, AiTaskUpdate } from './ai-task.js';
import { AiTaskStore } from './ai-task.store.js';
import { IntrospectionGuard, Scope } from './introspection.guard.js';

@Controller('api/ai-tasks')
@UseGuards(IntrospectionGuard)
export class AiTaskController {
  constructor(private readonly store: AiTaskStore) {}

  /** The service polls this route. Oldest tasks first; `limit` tasks if at least that number is pending. */
  @Get('pending')
  @Scope('read')
  pending(@Query('limit', new DefaultValuePipe(1000), ParseIntPipe) limit: number) {
    return this.store.find('pending', limit);
  }

  /** Needed only with CLAIM_TASKS=true: after a crash, the service finds its tasks here. */
  @Get()
  @Scope('read')
  inState(
    @Query('state') state: AiTaskState = 'pending',
    @Query('limit', new DefaultValuePipe(10_000), ParseIntPipe) limit: number,
  ) {
    return this.store.find(state, limit);
  }

  /** Receives each result at least once, and always the same result for one task. */
  @Patch(':id')
  @Scope('write')
  async update(@Param('id') id: string, @Body() update: AiTaskUpdate) {
    if (!isUpdate(update)) throw new BadRequestException('not a valid update of a task');
    if (!(await this.store.exists(id))) throw new NotFoundException('AI task not found');
    const { _id, type, state } = await this.store.update(id, update);
    return { _id, type, state };
  }
}

function isUpdate({ state, result }: AiTaskUpdate): boolean {
  if (state === 'succeeded') return Array.isArray(result) && result.length > 0 && result.every(Number.isFinite);
  if (state === 'failed') return typeof result === 'object' && 'error' in result;
  return state === 'in_progress';
}
