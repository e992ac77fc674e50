import { Module } from '@nestjs/common';
import { AiTaskController } from './ai-task.controller.js';
import { AiTaskStore } from './ai-task.store.js';
import { IntrospectionGuard } from './introspection.guard.js';

@Module({
  controllers: [AiTaskController],
  providers: [AiTaskStore, IntrospectionGuard],
  exports: [AiTaskStore],
})
export class AiTaskModule {}
