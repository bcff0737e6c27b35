// An authorization server that nobody here wrote: panva's oidc-provider, which is OpenID certified. It keeps everything in memory and listens on a free
// port of this machine. Beside it, on the same port, are an API that judges its tokens and a page with what it has seen.
//
// `node server.mjs <directory>` writes the clients' private keys there, and then one line to its standard output: {"issuer": "http://127.0.0.1:…"}.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Provider, { errors } from 'oidc-provider';
import { Api } from './api.mjs';
import { clients } from './clients.mjs';
import { login } from './login.mjs';

// Only the one line is for the standard output; the provider's notices are not.
console.info = console.error;

const directory = process.argv[2] ?? '.';
const keys = Object.fromEntries(
  [['ES256', 'ec', { namedCurve: 'P-256' }], ['RS256', 'rsa', { modulusLength: 2048 }], ['EdDSA', 'ed25519', {}]].map(([alg, type, options]) => {
    const { publicKey, privateKey } = generateKeyPairSync(type, options);
    writeFileSync(join(directory, `${alg}.pem`), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    return [alg, { ...publicKey.export({ format: 'jwk' }), kid: `${alg}-1`, alg, use: 'sig' }];
  }),
);

// The issuer's name holds the port, so the socket comes first.
const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

// A JWT is judged by its signature, an opaque token by asking the provider, so that it can be revoked.
const resources = {
  'urn:interop:jwt': { scope: 'api:read', accessTokenFormat: 'jwt', accessTokenTTL: 3 },
  'urn:interop:opaque': { scope: 'api:read', accessTokenFormat: 'opaque', accessTokenTTL: 60 },
};

const lifetime = (_, token) => token.resourceServer?.accessTokenTTL ?? 60;

const seen = { grants: [], refreshTokens: [], accessTokens: [] };
const provider = new Provider(issuer, {
  clients: clients(keys),
  scopes: ['openid', 'offline_access', 'api:read'],
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    // The login is its own form too: see login.mjs.
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      // A refresh without a `resource` is for the one that was granted.
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => {
        if (!Object.hasOwn(resources, resource)) throw new errors.InvalidTarget();
        return { ...resources[resource], audience: resource };
      },
    },
  },
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
  enabledJWA: { clientAuthSigningAlgValues: Object.keys(keys) },
  // Each refresh spends its refresh token, and a spent one that comes again ends the whole family.
  rotateRefreshToken: true,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  cookies: { keys: ['of no use outside of this process'] },
  ttl: { AccessToken: lifetime, ClientCredentials: lifetime, AuthorizationCode: 60, Grant: 3600, IdToken: 60, Interaction: 60, RefreshToken: 3600, Session: 3600 },
});
const grant = (ctx, error) => ({ client: ctx.oidc?.client?.clientId, type: ctx.oidc?.params?.grant_type, error: error?.message });
provider.on('grant.success', (ctx) => {
  seen.grants.push(grant(ctx));
  seen.accessTokens.push(ctx.body.access_token);
  const token = ctx.body.refresh_token;
  if (token) seen.refreshTokens.push({ client: ctx.oidc.client.clientId, token });
});
provider.on('grant.error', (ctx, error) => seen.grants.push({ ...grant(ctx, error), detail: error.error_detail ?? error.error_description }));
provider.on('server_error', (_, error) => console.error(error));

const api = new Api(issuer);
const fromProvider = provider.callback();
server.on('request', async (request, response) => {
  const json = (status, value, headers = {}) => response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
  try {
    const { pathname } = new URL(request.url, issuer);
    if (pathname.startsWith('/api/')) {
      const { status, headers, body } = await api.answer(pathname.slice('/api/'.length), request.headers.authorization);
      json(status, body, headers);
    } else if (pathname.startsWith('/test/login/')) {
      json(200, await login(issuer, pathname.slice('/test/login/'.length)));
    } else if (pathname.startsWith('/test/forget/')) {
      // Of the access token alone: revoked by its endpoint (RFC 7009) it takes the refresh tokens of its grant with it.
      const token = await provider.AccessToken.find(pathname.slice('/test/forget/'.length));
      await token.destroy();
      json(200, {});
    } else if (pathname === '/test/seen') {
      json(200, { ...seen, api: api.seen });
    } else {
      fromProvider(request, response);
    }
  } catch (error) {
    console.error(error);
    json(500, { error: String(error) });
  }
});

console.log(JSON.stringify({ issuer }));
