/** What a middlebox and its configuration agree on beside options. */

/** How an instance stands in the network. */
export type Mode = 'route' | 'wire';

/**
 * What all members agree on about shared state, as the operator chose it. Each field is an option
 * of the objects it concerns, so it is handed on whole: `counter({ ...shared })`.
 */
export interface SharedState {
  /** How counting objects replicate what they counted. */
  readonly form: 'totals' | 'increments';
  /** Members the cluster can have. */
  readonly members: number;
  /** Of the hashes of sketches; a secret. */
  readonly seed: string;
}
