import {
  CanActivate,
  ExecutionContext,
  ForbiddenException,
  Injectable,
  ServiceUnavailableException,
  UnauthorizedException,
} from '@nestjs/common';
import { Reflector } from '@nestjs/core';

/** The scope that a route requires. */
export const Scope = Reflector.createDecorator<string>();

/**
 * Lets a request pass if the authorization server says that its token is active and has the route's scope.
 *
 * INTROSPECTION_URL is https://SLUG.projects.oryapis.com/admin/oauth2/introspect with Ory, and
 * INTROSPECTION_AUTHORIZATION is `Bearer ` and an API key of the project there.
 */
@Injectable()
export class IntrospectionGuard implements CanActivate {
  constructor(private readonly reflector: Reflector) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const header: string = context.switchToHttp().getRequest().headers.authorization ?? '';
    const [scheme, token] = header.split(' ');
    if (scheme.toLowerCase() !== 'bearer' || !token) throw new UnauthorizedException();
    const { active, scope = '' } = await introspect(token);
    if (!active) throw new UnauthorizedException(); // 401: the service gets a new token, and tries again
    const needed = this.reflector.get(Scope, context.getHandler());
    if (needed && !scope.split(' ').includes(needed)) throw new ForbiddenException(`the token lacks ${needed}`);
    return true;
  }
}

async function introspect(token: string): Promise<{ active: boolean; scope?: string }> {
  try {
    const response = await fetch(process.env.INTROSPECTION_URL!, {
      method: 'POST',
      headers: { authorization: process.env.INTROSPECTION_AUTHORIZATION! },
      body: new URLSearchParams({ token }),
      signal: AbortSignal.timeout(5000),
    });
    if (!response.ok) throw new Error(`introspection returned ${response.status}`);
    return (await response.json()) as { active: boolean; scope?: string };
  } catch {
    throw new ServiceUnavailableException(); // 503, neither 401 nor 403: nothing is wrong with the token
  }
}
