/** The API page: the server's own OpenAPI document, shown offline. Requests go out with the page's session. */

import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";
import { BASE_PATH } from "../base_path";
import "./docs.css";

SwaggerUI({
  dom_id: "#docs",
  url: `${BASE_PATH}/openapi.json`,
  deepLinking: true,
  validatorUrl: null,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
  withCredentials: true,
});

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = (): void => void document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
