/** The interface of every thread: a duty cycle that a test can also step by hand. */
export interface Agent {
  onStart(): void | Promise<void>;
  /** One bounded round. Returns the amount of work done. 0 lets the thread idle. */
  doWork(): number;
  onClose(): void | Promise<void>;
}
