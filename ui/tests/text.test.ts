import { describe, expect, it } from "vitest";
import { nearest } from "../src/model/suggest";
import { visible } from "../src/model/visible_text";

describe("visible text", () => {
  it.each([
    ["llama-sft-7", "llama-sft-7"],
    ["Größe 模型 🦙", "Größe 模型 🦙"],
    ["two\nlines\tand a tab", "two\nlines\tand a tab"],
    ["\u202egnp.exe", "\\u202egnp.exe"],
    ["a\u2066b\u2069", "a\\u2066b\\u2069"],
    ["zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"],
    ["\u001b[31mred", "\\x1b[31mred"],
    ["tag\u{e0041}", "tag\\U000e0041"],
    ["blank\u3164", "blank\\u3164"],
    ["half\ud800", "half\\ud800"],
  ])("of %j is %j", (text, shown) => expect(visible(text)).toBe(shown));
});

describe("did you mean", () => {
  it.each<[string, readonly string[], string | undefined]>([
    ["vison", ["speech", "vision"], "vision"],
    ["VISION", ["speech", "vision"], "vision"],
    ["ada", ["grace@example.com", "ada@example.com"], "ada@example.com"],
    ["vision", ["vision"], undefined],
    ["x", ["speech"], undefined],
    ["anything", [], undefined],
    ["a".repeat(10_000), ["b".repeat(10_000)], undefined],
  ])("%s among %j is %s", (value, candidates, meant) => expect(nearest(value, candidates)).toBe(meant));
});
