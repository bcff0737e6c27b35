// Logs a user in as a browser would, form by form (RFC 6749 section 4.1 with RFC 7636), since no first refresh token comes any other way.
import { createHash, randomBytes } from 'node:crypto';
import { APP, NATIVE } from './clients.mjs';

export async function login(issuer, path) {
  const [name, resource] = path.split('/');
  const client = { app: APP, native: NATIVE }[name];
  const verifier = randomBytes(32).toString('base64url');
  const asked = new URLSearchParams({
    client_id: client.id,
    response_type: 'code',
    redirect_uri: client.redirect,
    scope: 'openid offline_access api:read',
    resource,
    prompt: 'consent',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  const code = await walk(new URL(`/auth?${asked}`, issuer), client.redirect);
  const body = new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: client.redirect, code_verifier: verifier });
  const headers = {};
  if (client.secret) {
    headers.authorization = `Basic ${Buffer.from(`${client.id}:${client.secret}`).toString('base64')}`;
  } else {
    body.set('client_id', client.id);
  }
  const response = await fetch(new URL('/token', issuer), { method: 'POST', headers, body });
  const answer = await response.json();
  if (!answer.refresh_token) throw new Error(`no refresh token: ${JSON.stringify(answer)}`);
  return { refresh_token: answer.refresh_token };
}

// From page to page with the browser's cookies, until one leads back to the application with a code.
async function walk(start, redirect) {
  const cookies = new Map();
  let url = start;
  let form;
  for (let page = 0; page < 12; page += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, { method: form ? 'POST' : 'GET', body: form, headers: { cookie, accept: 'text/html' }, redirect: 'manual' });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      cookies.set(name, value);
    }
    form = undefined;
    const to = response.headers.get('location');
    if (to) {
      url = new URL(to, url);
      if (url.href.startsWith(redirect)) return url.searchParams.get('code') ?? fail(`no code: ${url.search}`);
      continue;
    }
    const text = await response.text();
    const prompt = /name="prompt" value="(\w+)"/.exec(text)?.[1] ?? fail(`a page that is no form: ${response.status} ${text}`);
    form = new URLSearchParams({ prompt, ...(prompt === 'login' && { login: 'alice', password: 'any' }) });
  }
  return fail('the login never ends');
}

function fail(message) {
  throw new Error(message);
}
