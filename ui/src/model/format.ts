/** Text for quantities, durations and instants. */

const STEPS: readonly (readonly [number, string])[] = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "m"],
  [1, "s"],
];

/** Two units at most: `2h 11m`, `5d`, `0s`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const first = STEPS.findIndex(([size]) => whole >= size);
  if (first === -1) return "0s";
  const [size, unit] = STEPS[first]!;
  const next = STEPS[first + 1];
  const head = `${Math.floor(whole / size)}${unit}`;
  const rest = next === undefined ? 0 : Math.floor((whole % size) / next[0]);
  return next === undefined || rest === 0 ? head : `${head} ${rest}${next[1]}`;
}

/** One unit, for narrow columns: `2h`. */
export function shortDuration(seconds: number): string {
  return duration(seconds).split(" ")[0]!;
}

export function secondsBetween(from: string, to: number): number {
  return (to - Date.parse(from)) / 1000;
}

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const TWO = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });

export function count(value: number): string {
  return WHOLE.format(value);
}

/** GPUs and cores, with at most two decimals. */
export function decimal(value: number): string {
  return TWO.format(value);
}

const CENTS = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** An amount of money without its currency, as the command line writes it. */
export function amount(value: number): string {
  return CENTS.format(value);
}

const SUFFIXES: Readonly<Record<string, number>> = {
  "": 1,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** GPU-hours: two decimals below 10, whole numbers above. */
export function gpuHours(value: number): string {
  return value < 10 ? decimal(value) : count(Math.round(value));
}

/** A Kubernetes quantity as a number, or undefined if it is invalid. */
export function quantity(text: string): number | undefined {
  const match = /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)$/u.exec(text);
  if (match === null) return undefined;
  const factor = SUFFIXES[match[2]!];
  const number = Number(match[1]);
  return factor === undefined || !Number.isFinite(number) ? undefined : number * factor;
}

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes in binary units: `64 GiB`. */
export function bytes(value: number): string {
  let size = value;
  let step = 0;
  while (Math.abs(size) >= 1024 && step < BINARY.length - 1) {
    size /= 1024;
    step += 1;
  }
  const digits = Math.abs(size) >= 100 || Number.isInteger(size) ? 0 : Math.abs(size) >= 10 ? 1 : 2;
  return `${size.toLocaleString("en-US", { maximumFractionDigits: digits })} ${BINARY[step]!}`;
}

/** A memory quantity in binary units; an invalid one unchanged. */
export function memory(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const value = quantity(text);
  return value === undefined ? text : bytes(value);
}

const LOCAL = new Intl.DateTimeFormat(undefined, {
  year: "numeric",
  month: "short",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

export function localInstant(iso: string): string {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? iso : LOCAL.format(at);
}

export function clock(at: number): string {
  return CLOCK.format(at);
}

/** For the hover text: the same instant in UTC, to the second. */
export function utcInstant(iso: string): string {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? iso : `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

export function plural(number: number, singular: string, many: string): string {
  return `${decimal(number)} ${number === 1 ? singular : many}`;
}

/** Allocated GPUs: `?` (null) where the nodes do not tell what a unit of them is. */
export function allocation(gpus: number | null | undefined): string {
  return gpus === null ? "?" : decimal(gpus ?? 0);
}
