import { integer } from "./format.js";

const EXACT = 2n ** 52n;
const ROUND = 2n ** 40n;

/**
 * Converts steps to numbers that a chart can draw and calculate with. JSON carries steps above 2^53 as strings, because
 * numbers would not be exact. Such steps are counted from a round step before them.
 */
export class StepAxis {
  /** step: a number or a string, of the generation that is shown. */
  constructor(step = 0) {
    const given = BigInt(step);
    this.origin = given < EXACT ? 0n : (given / ROUND) * ROUND;
  }

  /** Returns a step's place on the axis. */
  at(step) {
    return Number(BigInt(step) - this.origin);
  }

  /** Returns the step at a place on the axis, formatted for people. */
  text(at) {
    return integer(String(this.origin + BigInt(at)));
  }
}
