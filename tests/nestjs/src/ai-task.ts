/** What a task looks like on the wire. */
export interface AiTask {
  _id: string;
  type: 'text_embedding';
  state: AiTaskState;
  content: { text: string; model: string };
  createdAt: string;
}

export type AiTaskState = 'pending' | 'in_progress' | 'succeeded' | 'failed';

/** The body of a PATCH: a vector for `succeeded`, an error for `failed`, nothing for `in_progress`. */
export interface AiTaskUpdate {
  state: Exclude<AiTaskState, 'pending'>;
  result?: number[] | { error: { code: string; message: string } };
}
