import { Prop, Schema, SchemaFactory } from '@nestjs/mongoose';
import { HydratedDocument, Schema as MongooseSchema } from 'mongoose';

/** Where a result goes in your application: which callback, and what it needs to find the place. */
@Schema({ _id: false })
export class Callback {
  /** The name of the callback, such as `article-embedding`. */
  @Prop({ required: true })
  route!: string;

  /** What the callback needs, such as the id of the article and the field for the vector. */
  @Prop({ type: MongooseSchema.Types.Mixed, required: true })
  params!: Record<string, unknown>;
}

/** An AI task in MongoDB. The service reads `_id`, `type`, `state`, `content` and `createdAt`, and ignores the rest. */
@Schema({ collection: 'ai-tasks', timestamps: true }) // timestamps: createdAt and updatedAt
export class AiTaskRecord {
  @Prop({ required: true, enum: ['text_embedding'] })
  type!: string;

  @Prop({ required: true, enum: ['pending', 'in_progress', 'succeeded', 'failed'], default: 'pending' })
  state!: string;

  /** For `text_embedding`: { text, model }. */
  @Prop({ type: MongooseSchema.Types.Mixed, required: true })
  content!: Record<string, unknown>;

  @Prop({ type: SchemaFactory.createForClass(Callback), required: true })
  callback!: Callback;

  /** Why the task failed: { code, message }. */
  @Prop({ type: MongooseSchema.Types.Mixed })
  error?: { code: string; message: string };

  createdAt!: Date;
}

export type AiTaskDocument = HydratedDocument<AiTaskRecord>;
export const AiTaskSchema = SchemaFactory.createForClass(AiTaskRecord);
/** Each poll finds the oldest pending tasks. Without this index it scans and sorts all tasks. */
AiTaskSchema.index({ state: 1, createdAt: 1 });
