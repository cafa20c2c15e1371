import { render } from "preact";
import { App } from "./app";
import { applyTheme } from "./theme";
import { showHiddenCharacters } from "./visible_dom";

applyTheme();
showHiddenCharacters();
render(<App />, document.getElementById("app")!);
