package gateway;

import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.interfaces.RSAPublicKey;
import java.security.spec.X509EncodedKeySpec;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.cloud.gateway.route.RouteLocator;
import org.springframework.cloud.gateway.route.builder.GatewayFilterSpec;
import org.springframework.cloud.gateway.route.builder.RouteLocatorBuilder;
import org.springframework.context.annotation.Bean;
import org.springframework.http.HttpMethod;
import org.springframework.security.config.web.server.ServerHttpSecurity;
import org.springframework.security.oauth2.core.DelegatingOAuth2TokenValidator;
import org.springframework.security.oauth2.jwt.JwtClaimNames;
import org.springframework.security.oauth2.jwt.JwtClaimValidator;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusReactiveJwtDecoder;
import org.springframework.security.oauth2.jwt.ReactiveJwtDecoder;
import org.springframework.security.web.server.SecurityWebFilterChain;
import org.springframework.security.web.server.context.NoOpServerSecurityContextRepository;
import org.springframework.web.server.ServerWebExchange;

import reactor.core.publisher.Mono;

/** The same job on Spring Cloud Gateway: an OAuth 2 resource server in front of the engine. */
@SpringBootApplication
public class Gateway {
  public static void main(String[] arguments) {
    SpringApplication.run(Gateway.class, arguments);
  }

  @Bean
  RouteLocator routes(RouteLocatorBuilder routes, @Value("${bench.engine}") String engine) {
    return routes.routes()
        .route("start", route -> route
            .method(HttpMethod.POST).and().path("/api/process-definition/**").and().path("/**/start")
            .filters(filters -> toEngine(filters).modifyRequestBody(Map.class, Map.class, this::withInitiator))
            .uri(engine))
        .route("rest", route -> route.path("/api/**").filters(this::toEngine).uri(engine))
        .build();
  }

  private GatewayFilterSpec toEngine(GatewayFilterSpec filters) {
    return filters
        .rewritePath("/api/(?<rest>.*)", "/engine-rest/${rest}")
        .preserveHostHeader()
        .setRequestHeader("Authorization", "Basic ZGVtbzpkZW1v");
  }

  @SuppressWarnings("unchecked")
  private Mono<Map> withInitiator(ServerWebExchange exchange, Map body) {
    return exchange.getPrincipal().map(caller -> {
      var changed = new HashMap<String, Object>(body);
      var variables = new HashMap<String, Object>((Map<String, Object>) body.getOrDefault("variables", Map.of()));
      variables.put("initiator", Map.of("value", caller.getName(), "type", "String"));
      changed.put("variables", variables);
      return changed;
    });
  }

  @Bean
  SecurityWebFilterChain security(ServerHttpSecurity http) {
    return http
        .csrf(ServerHttpSecurity.CsrfSpec::disable)
        .securityContextRepository(NoOpServerSecurityContextRepository.getInstance())
        .requestCache(cache -> cache.disable())
        .authorizeExchange(exchange -> exchange.anyExchange().authenticated())
        .oauth2ResourceServer(server -> server.jwt(jwt -> {}))
        .build();
  }

  @Bean
  ReactiveJwtDecoder tokens(
      @Value("${bench.key}") Path key,
      @Value("${bench.issuer}") String issuer,
      @Value("${bench.audience}") String audience) throws Exception {
    var spec = new X509EncodedKeySpec(Files.readAllBytes(key));
    var decoder = NimbusReactiveJwtDecoder
        .withPublicKey((RSAPublicKey) KeyFactory.getInstance("RSA").generatePublic(spec))
        .build();
    decoder.setJwtValidator(new DelegatingOAuth2TokenValidator<>(
        JwtValidators.createDefaultWithIssuer(issuer),
        new JwtClaimValidator<List<String>>(JwtClaimNames.AUD, those -> those != null && those.contains(audience))));
    return decoder;
  }
}
