/** Who is logged in. */

import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Me } from "./api/shapes";

export const MeContext = createContext<Me | undefined>(undefined);

export function useMe(): Me | undefined {
  return useContext(MeContext);
}
