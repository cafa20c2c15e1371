/** Login with an identity provider, or with a client ID and secret. The session is a cookie that scripts cannot read. */

import { useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { loginUrl, listIdentityProviders, logIn } from "../api/routes";
import type { Me } from "../api/shapes";
import { useLiveQuery } from "../hooks/live_query";
import { safePath } from "../model/links";
import { signInError } from "../model/login_error";
import { Logo } from "../components/logo";

interface LoginProps {
  readonly wasLoggedIn: boolean;
  readonly onLoggedIn: (me: Me) => void;
}

export function LoginPage({ wasLoggedIn, onLoggedIn }: LoginProps) {
  const [clientId, setClientId] = useState("");
  const [secret, setSecret] = useState("");
  const [problem, setProblem] = useState<string | undefined>(undefined);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setProblem(undefined);
    try {
      onLoggedIn(await logIn(clientId.trim(), secret.trim()));
    } catch (error) {
      setProblem(problemOf(error));
    } finally {
      setSecret("");
      setBusy(false);
    }
  };
  return (
    <main class="login">
      <form class="login-box" onSubmit={(event) => void submit(event)}>
        <h1>
          <Logo /> Watchbill
        </h1>
        {wasLoggedIn && <p class="muted">Your session has ended. Please log in again.</p>}
        <IdentityProviders />
        <label>
          Client ID
          <input
            name="clientId"
            autocomplete="username"
            spellcheck={false}
            required
            value={clientId}
            onInput={(event) => setClientId(event.currentTarget.value)}
          />
        </label>
        <label>
          Client secret
          <input
            name="clientSecret"
            type="password"
            autocomplete="current-password"
            required
            value={secret}
            onInput={(event) => setSecret(event.currentTarget.value)}
          />
        </label>
        {problem !== undefined && (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
        <button type="submit" class="button is-primary" disabled={isBusy}>
          {isBusy ? "Logging in…" : "Log in"}
        </button>
        <p class="muted">The server prints the first client ID and secret when it starts for the first time.</p>
      </form>
    </main>
  );
}

/** Links, not forms: they lead to another site and back. */
function IdentityProviders() {
  const { data } = useLiveQuery("identity providers", listIdentityProviders, undefined);
  if (data === undefined || data.length === 0) return null;
  const query = new URLSearchParams(window.location.search);
  const next = safePath(query.get("next"));
  const failure = signInError(query, data);
  return (
    <>
      {failure !== undefined && (
        <p class="problem" role="alert">
          {failure}
        </p>
      )}
      {data.map((provider) => (
        <a key={provider.name} class="button is-primary" href={loginUrl(provider, next)}>
          Log in with {provider.title}
        </a>
      ))}
      <p class="or">or with a client ID</p>
    </>
  );
}

function problemOf(error: unknown): string {
  if (!(error instanceof ApiError)) return "Login failed. Please try again.";
  if (error.status === 401) return "The client ID or the secret is wrong.";
  if (error.status === 429) return "Too many failed attempts. Please wait a minute.";
  return error.message;
}
