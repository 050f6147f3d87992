// An OpenID provider that we did not write, for the tests: `node provider.mjs PORT NAME ACCOUNTS KEY`.
//
// ACCOUNTS is JSON: what is said of whoever types a login into its page, by that login. It makes a key at each start and
// calls it KEY: starting it again under another name is a rotation. Its pages are its own.

import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// Packages are found by NODE_PATH, which `import` does not look at.
const found = createRequire(import.meta.url).resolve('oidc-provider');
const { Provider } = await import(pathToFileURL(found));

const [port, name, accounts, kid] = process.argv.slice(2);
const known = JSON.parse(accounts);
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const jwk = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid };
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'farcall',
    client_secret: 'a secret/with+what:has to be&escaped=',
    redirect_uris: JSON.parse(process.env.REDIRECT_URIS),
    grant_types: ['authorization_code'],
    response_types: ['code'],
  }],
  jwks: { keys: [jwk] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'preferred_username'] },
  conformIdTokenClaims: false,
  features: { devInteractions: { enabled: true }, userinfo: { enabled: true } },
  pkce: { required: () => true },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ ...known[id], sub: known[id]?.sub ?? id }) }),
  cookies: { keys: ['not a secret'], names: { session: `${name}_session`, interaction: `${name}_interaction`, resume: `${name}_resume` } },
});
provider.listen(Number(port), '127.0.0.1', () => console.log(`${name} is up`));
