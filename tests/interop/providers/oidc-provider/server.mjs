// The certified provider `oidc-provider` with its own login and consent pages, mounted below /oidc.
//
// The configuration is one line of JSON on stdin; the end of stdin is the end of the provider. It writes
// {"site": ...} to stdout when it listens, and lists at SITE/requests what came to its token endpoints.

import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

import Provider from "oidc-provider";

console.info = console.error; // the library's notices: stdout is for the line above

const SCOPES = "openid email profile pydio offline offline_access";

function configure(config, site) {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return {
    clients: config.clients.map((client) => registration(client, config)),
    clientAuthMethods: config.client_auth_methods,
    claims: { openid: ["sub"], profile: ["name"], email: ["email"] },
    conformIdTokenClaims: true, // OpenID Connect Core §5.4: scopes ask for claims of userinfo, not of the ID token
    cookies: { keys: [crypto.randomUUID()] },
    features: {
      devInteractions: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: resourceIndicators(config, site),
    },
    findAccount: (_ctx, login) => ({
      accountId: login,
      claims: () => ({ sub: config.user.sub, name: login, email: config.user.email }),
    }),
    // Cells' name for the scope; the standard's own needs prompt=consent, as §11 of OpenID Connect Core wants.
    issueRefreshToken: (_ctx, _client, code) => code.scopes.has("offline") || code.scopes.has("offline_access"),
    jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), kid: "provider-key", alg: "RS256", use: "sig" }] },
    pkce: { required: () => config.pkce === "required" },
    rotateRefreshToken: true,
    routes: {
      authorization: "/oauth2/auth",
      token: "/oauth2/token",
      revocation: "/oauth2/revoke",
      userinfo: "/userinfo",
      jwks: "/.well-known/jwks.json",
    },
    scopes: SCOPES.split(" "),
    ttl: { AccessToken: config.access_token_seconds, Grant: 3600, IdToken: 600, Interaction: 600, RefreshToken: 3600, Session: 3600 },
  };
}

function registration(client, config) {
  return {
    ...client,
    application_type: "native",
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: client.client_secret
      ? config.client_auth_methods.find((method) => method.startsWith("client_secret_"))
      : "none",
  };
}

// Access tokens are JWTs where they are meant for one resource server (RFC 8707, RFC 9068).
function resourceIndicators(config, site) {
  return {
    enabled: config.access_token === "jwt",
    defaultResource: () => `${site}/a`,
    useGrantedResource: () => true,
    getResourceServerInfo: () => ({
      scope: SCOPES,
      accessTokenFormat: "jwt",
      accessTokenTTL: config.access_token_seconds,
      jwt: { sign: { alg: "RS256" } },
    }),
  };
}

const requests = [];

// Notes what came to a token endpoint and how it ended, without any secret, before it is answered.
async function record(ctx, next) {
  await next();
  const { params, body } = ctx.oidc ?? {};
  if (ctx.method !== "POST" || !["/oauth2/token", "/oauth2/revoke"].includes(ctx.path)) return;
  const form = { ...body, ...params };
  requests.push({
    endpoint: `/oidc${ctx.path}`,
    grant_type: form.grant_type ?? "",
    code_verifier: Boolean(form.code_verifier),
    authentication: authentication(ctx, form),
    status: ctx.status,
    ...(ctx.status >= 400 && { answer: JSON.stringify(ctx.body) }),
  });
}

function authentication(ctx, form) {
  if (ctx.get("authorization").startsWith("Basic ")) return "client_secret_basic";
  return form.client_secret ? "client_secret_post" : "none";
}

const lines = createInterface({ input: process.stdin });
const [line] = await once(lines, "line");
lines.on("close", () => process.exit());
const config = JSON.parse(line);

const server = createServer();
server.listen(0, "127.0.0.1");
await once(server, "listening");
const site = `http://localhost:${server.address().port}`;
const provider = new Provider(`${site}/oidc`, configure(config, site));
provider.use(record);
const answer = provider.callback();
server.on("request", (request, response) => {
  if (!request.url.startsWith("/oidc/")) {
    const found = request.url === "/requests";
    response.writeHead(found ? 200 : 404).end(found ? JSON.stringify(requests) : "");
    return;
  }
  request.originalUrl = request.url;
  request.url = request.url.slice("/oidc".length);
  answer(request, response);
});
process.stdout.write(`${JSON.stringify({ site })}\n`);
