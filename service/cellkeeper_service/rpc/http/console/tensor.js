/** Tensors as the API carries them: { dtype, shape, data: nested lists }, with NaN and infinities as strings. */

/** Returns the values in C order, as numbers. */
export function flat(data) {
  return Array.isArray(data) ? data.flat(Infinity).map(Number) : [Number(data)];
}

/** The inverse: turns values in C order into nested lists of that shape. */
export function nested(values, shape) {
  if (!shape.length) return values[0];
  const [first, ...rest] = shape;
  if (!rest.length) return values.slice(0, first);
  const size = rest.reduce((product, each) => product * each, 1);
  return Array.from({ length: first }, (_, i) => nested(values.slice(i * size, (i + 1) * size), rest));
}

/** Returns how many values a tensor of that shape has. */
export function size(shape) {
  return shape.reduce((product, each) => product * each, 1);
}

/** Returns a number as JSON carries it; NaN and infinities become strings. */
export function jsonNumber(value) {
  return Number.isFinite(value) ? value : String(value);
}

/** The magnitude from which on a bounded value counts as saturated. */
export const SATURATED = 0.99;

/**
 * Returns the smallest and largest value, the Euclidean norm, and the share of saturated values. The share is null if a
 * value is beyond ±1, because the tensor then has no bound at which values could saturate.
 */
export function summary(values) {
  let min = Infinity;
  let max = -Infinity;
  let squares = 0;
  let saturated = 0;
  for (const value of values) {
    if (value < min) min = value;
    if (value > max) max = value;
    squares += value * value;
    if (Math.abs(value) >= SATURATED) saturated += 1;
  }
  const bounded = min >= -1 && max <= 1;
  return { min, max, norm: Math.sqrt(squares), saturated: bounded && values.length ? saturated / values.length : null };
}

/**
 * Returns the layers of a state: [{ name, values }]. If a tensor has two or more axes, the first one is the layer, as
 * in all recurrent engines here.
 */
export function layers(states) {
  return Object.entries(states).flatMap(([name, { shape, data }]) => {
    if (shape.length < 2 || shape[0] === 1) return [{ name, values: flat(data) }];
    return data.map((part, i) => ({ name: `${name}[${i}]`, values: flat(part) }));
  });
}
