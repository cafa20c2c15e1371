import type { ComponentChildren } from "preact";
import { Link } from "../router";

export interface BarRow {
  readonly key: string;
  readonly label: ComponentChildren;
  readonly value: number;
  readonly shown: string;
  /** The whole that the value is part of, drawn as a lighter bar. */
  readonly whole?: number;
  readonly to?: string;
  readonly tone?: string;
}

interface BarsProps {
  readonly rows: readonly BarRow[];
  readonly label: string;
  /** What is shown instead if there are no rows. */
  readonly empty?: string;
}

/** Sorted bars with numbers; each row links to its workloads. */
export function Bars({ rows, label, empty }: BarsProps) {
  if (rows.length === 0 && empty !== undefined) return <p class="muted">{empty}</p>;
  const most = Math.max(1e-9, ...rows.map((row) => Math.max(row.value, row.whole ?? 0)));
  return (
    <ul class="bars" aria-label={label}>
      {rows.map((row) => (
        <li key={row.key}>
          <BarLink to={row.to}>
            <span class="bars-label">{row.label}</span>
            <span class="bars-track">
              {row.whole !== undefined && (
                <span class="bars-whole" style={{ width: `${(100 * row.whole) / most}%` }} />
              )}
              {row.value > 0 && (
                <span class={`bars-fill tone-${row.tone ?? "accent"}`} style={{ width: `${(100 * row.value) / most}%` }} />
              )}
            </span>
            <span class="bars-value">{row.shown}</span>
          </BarLink>
        </li>
      ))}
    </ul>
  );
}

function BarLink(props: { readonly to: string | undefined; readonly children: ComponentChildren }) {
  if (props.to === undefined) return <span class="bars-row">{props.children}</span>;
  return (
    <Link class="bars-row" to={props.to}>
      {props.children}
    </Link>
  );
}
