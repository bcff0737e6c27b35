// The API that tokens are for. `/api/jwt` verifies a signature (RFC 9068), `/api/opaque` asks the provider each time (RFC 7662).
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { API } from './clients.mjs';

export class Api {
  seen = { accepted: 0, refused: 0 };

  constructor(issuer) {
    this.issuer = issuer;
    this.keys = createRemoteJWKSet(new URL(`${issuer}/jwks`));
  }

  async answer(kind, authorization) {
    const token = /^Bearer (\S+)$/.exec(authorization ?? '')?.[1];
    const claims = token && (await this.judge(kind, token));
    if (claims) {
      this.seen.accepted += 1;
      return { status: 200, body: { client: claims.client_id, expires: claims.exp } };
    }
    this.seen.refused += 1;
    // RFC 6750 section 3.1: without a token there is nothing to say an error about.
    const error = token ? ', error="invalid_token"' : '';
    return { status: 401, headers: { 'www-authenticate': `Bearer realm="interop"${error}` }, body: {} };
  }

  async judge(kind, token) {
    if (kind === 'jwt') {
      const rules = { issuer: this.issuer, audience: 'urn:interop:jwt', typ: 'at+jwt' };
      return jwtVerify(token, this.keys, rules).then(({ payload }) => payload, () => undefined);
    }
    const basic = [API.id, API.secret].map(encodeURIComponent).join(':');
    const response = await fetch(`${this.issuer}/token/introspection`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from(basic).toString('base64')}` },
      body: new URLSearchParams({ token }),
    });
    const answer = await response.json();
    return answer.active && answer.aud === 'urn:interop:opaque' ? answer : undefined;
  }
}
