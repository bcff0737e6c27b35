// Who may ask the provider for tokens: one client for each way of saying who it is.

// Characters that mean something in a form and in a header, which RFC 6749 section 2.3.1 therefore encodes before base64.
export const BASIC = { id: 'basic:client 1+1', secret: 's3cr3t basic:100% &=+/' };
export const POST = { id: 'post-client', secret: 's3cr3t post:100% &=+/' };
// Whose tokens are revoked while they are in use.
export const REVOKED = { id: 'revoked', secret: 's3cr3t-of-the-revoked' };
// Is refused, for one thing or another.
export const REFUSED = { id: 'refused', secret: 's3cr3t-of-the-refused' };
// Asks on behalf of the API whether an opaque token is good.
export const API = { id: 'api', secret: 's3cr3t-of-the-api' };
// A web application: its users log in, and it refreshes for them.
export const APP = { id: 'app', secret: 's3cr3t-of-the-app', redirect: 'https://app.example.com/callback' };
// An application on somebody's machine, that cannot keep a secret (RFC 8252).
export const NATIVE = { id: 'native', redirect: 'https://native.example.com/callback' };

export function clients(keys) {
  const machine = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope: 'api:read' };
  const user = { grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], scope: 'openid offline_access api:read' };
  return [
    { client_id: BASIC.id, client_secret: BASIC.secret, token_endpoint_auth_method: 'client_secret_basic', ...machine },
    { client_id: POST.id, client_secret: POST.secret, token_endpoint_auth_method: 'client_secret_post', ...machine },
    ...[REVOKED, REFUSED, API].map(({ id, secret }) => ({
      client_id: id,
      client_secret: secret,
      token_endpoint_auth_method: 'client_secret_basic',
      ...machine,
    })),
    ...Object.entries(keys).map(([alg, key]) => ({
      client_id: `key-${alg}`,
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: alg,
      jwks: { keys: [key] },
      ...machine,
    })),
    { client_id: APP.id, client_secret: APP.secret, token_endpoint_auth_method: 'client_secret_basic', redirect_uris: [APP.redirect], ...user },
    { client_id: NATIVE.id, token_endpoint_auth_method: 'none', redirect_uris: [NATIVE.redirect], ...user },
  ];
}
