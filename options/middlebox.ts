/** What a middlebox and its configuration share beside options. */

/** How an instance is placed in the network. */
export type Mode = 'route' | 'wire';

/**
 * The properties of shared state on which all members agree, as the operator chose them. Each field
 * is an option of the objects it concerns, so it is passed on whole: `counter({ ...shared })`.
 */
export interface SharedState {
  /** How counting objects replicate their counts. */
  readonly form: 'totals' | 'increments';
  /** Maximum number of members of the cluster. */
  readonly members: number;
  /** Key of the hashes of sketches; a secret. */
  readonly seed: string;
}
