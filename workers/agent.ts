/**
 * Every thread is an agent: a duty cycle that can also be stepped by hand in a test.
 */
export interface Agent {
  onStart(): void | Promise<void>;
  /** One bounded round. Returns how much was done; 0 lets the thread idle. */
  doWork(): number;
  onClose(): void | Promise<void>;
}
