import { integer } from "./format.js";

const EXACT = 2n ** 52n;
const ROUND = 2n ** 40n;

/**
 * Steps as numbers that a chart can draw and count with. JSON carries steps above 2^53 as texts, which are no exact
 * numbers: those are counted from a round step before them.
 */
export class StepAxis {
  /** step: a number or a text, of the generation that is shown. */
  constructor(step = 0) {
    const given = BigInt(step);
    this.origin = given < EXACT ? 0n : (given / ROUND) * ROUND;
  }

  /** Where a step is on the axis. */
  at(step) {
    return Number(BigInt(step) - this.origin);
  }

  /** The step that is there, as a text for people. */
  text(at) {
    return integer(String(this.origin + BigInt(at)));
  }
}
