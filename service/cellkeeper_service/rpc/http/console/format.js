/** Formats numbers, durations, sizes and ids for people. Accepts integers that JSON carries as strings. */

const GROUPED = new Intl.NumberFormat("en-US");

/** An integer with thousands separators, from a number or (above 2^53) a decimal string. */
export function integer(value) {
  return GROUPED.format(typeof value === "string" ? BigInt(value) : value);
}

/** A number with about four significant digits; NaN and infinities by name. */
export function number(value, digits = 4) {
  const given = Number(value);
  if (!Number.isFinite(given)) return Number.isNaN(given) ? "NaN" : given > 0 ? "∞" : "−∞";
  if (given === 0) return "0";
  const size = Math.abs(given);
  if (size >= 1e7 || size < 1e-4) return given.toExponential(Math.max(digits - 2, 1)).replace("-", "−");
  const decimals = Math.max(0, Math.min(8, digits - 1 - Math.floor(Math.log10(size))));
  return given.toLocaleString("en-US", { maximumFractionDigits: decimals }).replace("-", "−");
}

/**
 * A value with enough digits to distinguish it from every other of its type: for fields, and for tables, where
 * different values must not look the same. A value that float32 can represent is formatted as a float32.
 */
export function exact(value) {
  if (typeof value === "string" || Number.isInteger(value) || Math.fround(value) !== value) return String(value);
  for (let digits = 6; digits < 10; digits += 1) {
    const text = Number(value.toPrecision(digits));
    if (Math.fround(text) === value) return String(text);
  }
  return String(value);
}

const UNITS = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
  ["s", 1000],
];

/** Milliseconds as "3 d 4 h", "12 min", "8 s", "under 1 s". */
export function duration(ms) {
  const given = Number(ms);
  const first = UNITS.findIndex(([, size]) => given >= size);
  if (first < 0) return "under 1 s";
  const [unit, size] = UNITS[first];
  const whole = Math.floor(given / size);
  const next = UNITS[first + 1];
  const rest = next && first < 2 ? Math.floor((given - whole * size) / next[1]) : 0;
  return rest ? `${whole} ${unit} ${rest} ${next[0]}` : `${whole} ${unit}`;
}

/** Milliseconds of a latency: "0.84 ms". */
export function latency(ms) {
  return ms === null || ms === undefined ? "–" : `${number(ms, 3)} ms`;
}

/** Bytes as "412 B", "3.2 KiB", "1.5 MiB". */
export function bytes(count) {
  const given = Number(count);
  if (given < 1024) return `${given} B`;
  const step = Math.min(Math.floor(Math.log2(given) / 10), 4);
  return `${number(given / 1024 ** step, 3)} ${["", "KiB", "MiB", "GiB", "TiB"][step]}`;
}

const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/**
 * A session's id, with unprintable characters as escapes: they may hide a part of it or turn its letters around, so
 * that it looks like another.
 */
export function readable(id) {
  return id.replace(UNPRINTABLE, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** The first characters of a fingerprint or generation. */
export function short(hex) {
  return String(hex).slice(0, 8);
}

/** [2, 64] as "2 × 64"; [] as "scalar". */
export function shape(dimensions) {
  return dimensions.length ? dimensions.join(" × ") : "scalar";
}

/** "1 session", "2 sessions". */
export function counted(count, noun) {
  return `${integer(count)} ${noun}${Number(count) === 1 ? "" : "s"}`;
}
