// A strict OpenID provider for the tests: panva's certified server, with people and faults that the tests name.
// Its one argument is a JSON text: {port, redirectUri, secret, people: {login: claims}, keys: [private JWKs]}.

import { Provider } from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${settings.port}`;
const state = { fault: null, jwks: 0, refusedGrants: [] };

const redirectUris = [settings.redirectUri];
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'watchbill-page',
      client_secret: settings.secret,
      redirect_uris: redirectUris,
      token_endpoint_auth_method: 'client_secret_basic',
    },
    {
      client_id: 'program',
      redirect_uris: redirectUris,
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
    },
  ],
  jwks: { keys: settings.keys },
  cookies: { keys: ['only for tests'] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups', '_claim_names', '_claim_sources'] },
  conformIdTokenClaims: true, // what a scope asks for is told at the userinfo endpoint alone, as the standard has it
  pkce: { required: () => true },
  rotateRefreshToken: true,
  findAccount: (_, id) =>
    settings.people[id] && { accountId: id, claims: () => ({ sub: id, ...settings.people[id] }) },
  extraTokenClaims: (_, token) => settings.people[token.accountId],
  features: {
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'read',
        audience: resource,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 7200,
      }),
      useGrantedResource: () => true,
    },
  },
});

const faults = {
  500: (ctx) => { ctx.status = 500; },
  garbage: (ctx) => { ctx.body = '\u0000<html>'; },
  huge: (ctx) => { ctx.type = 'json'; ctx.body = `{"keys":[${' '.repeat(1_000_000)}]}`; },
  twins: async (ctx, next) => {
    await next();
    ctx.body = { keys: [...ctx.body.keys, ...ctx.body.keys] };
  },
};

provider.use(async (ctx, next) => {
  if (ctx.path === '/test') {
    if (ctx.query.fault !== undefined) state.fault = ctx.query.fault || null;
    ctx.body = state;
    return undefined;
  }
  if (ctx.path === '/jwks') {
    state.jwks += 1;
    if (state.fault !== null) return faults[state.fault](ctx, next);
  }
  return next();
});

provider.on('grant.error', (_, error) => state.refusedGrants.push(`${error.error}: ${error.error_detail}`));

provider.listen(settings.port, '127.0.0.1', () => console.log(issuer));
