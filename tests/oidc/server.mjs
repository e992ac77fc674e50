// An OAuth2 server with Ory's paths: client credentials, introspection, tokens that are valid for TTL seconds.
// Prints {"url", "tokens"?} once it listens on a free port of 127.0.0.1, and ends when its standard input does.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const { CLIENT_ID, CLIENT_SECRET, TTL } = process.env;

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(url, {
    clients: [
      {
        client_id: CLIENT_ID,
        client_secret: CLIENT_SECRET,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        scope: 'read write',
      },
    ],
    scopes: ['read', 'write'],
    routes: { token: '/oauth2/token', introspection: '/admin/oauth2/introspect' },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true, allowedPolicy: () => true },
    },
    ttl: { ClientCredentials: Number(TTL) },
  });
  let issued = 0;
  provider.on('grant.success', () => (issued += 1));
  const handle = provider.callback();
  server.on('request', (request, response) => {
    if (request.url === '/issued') response.end(String(issued));
    else handle(request, response);
  });
  process.stdout.write(`${JSON.stringify({ url })}\n`);
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
