/** Signing in through an issuer, or with a client's id and secret. The session is a cookie that no script can read. */

import { useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { issuerUrl, listIssuers, signIn } from "../api/routes";
import type { Me } from "../api/shapes";
import { useLive } from "../hooks/live";
import { safePath } from "../model/links";
import { signOnFailure } from "../model/sign_on";
import { Logo } from "../parts/logo";

interface LoginProps {
  readonly wasSignedIn: boolean;
  readonly onSignedIn: (me: Me) => void;
}

export function LoginPage({ wasSignedIn, onSignedIn }: LoginProps) {
  const [clientId, setClientId] = useState("");
  const [secret, setSecret] = useState("");
  const [problem, setProblem] = useState<string | undefined>(undefined);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setProblem(undefined);
    try {
      onSignedIn(await signIn(clientId.trim(), secret.trim()));
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
        {wasSignedIn && <p class="muted">The session has ended. Please sign in again.</p>}
        <Issuers />
        <label>
          Client id
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
          {isBusy ? "Signing in…" : "Sign in"}
        </button>
        <p class="muted">The server prints a first client id and secret when it starts for the first time.</p>
      </form>
    </main>
  );
}

/** Links, not forms: what follows is a walk to another site and back. */
function Issuers() {
  const { data } = useLive("issuers", listIssuers, undefined);
  if (data === undefined || data.length === 0) return null;
  const query = new URLSearchParams(window.location.search);
  const next = safePath(query.get("next"));
  const failure = signOnFailure(query, data);
  return (
    <>
      {failure !== undefined && (
        <p class="problem" role="alert">
          {failure}
        </p>
      )}
      {data.map((issuer) => (
        <a key={issuer.name} class="button is-primary" href={issuerUrl(issuer, next)}>
          Sign in with {issuer.title}
        </a>
      ))}
      <p class="or">or with a client id</p>
    </>
  );
}

function problemOf(error: unknown): string {
  if (!(error instanceof ApiError)) return "Signing in did not work. Please try again.";
  if (error.status === 401) return "The client id or the secret is not right.";
  if (error.status === 429) return "Too many failed attempts. Please wait a minute.";
  return error.message;
}
