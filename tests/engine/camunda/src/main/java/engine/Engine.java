package engine;

import java.io.IOException;
import org.camunda.bpm.engine.rest.security.auth.ProcessEngineAuthenticationFilter;
import org.camunda.bpm.engine.rest.security.auth.impl.HttpBasicAuthenticationProvider;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.boot.web.servlet.context.ServletWebServerApplicationContext;
import org.springframework.context.annotation.Bean;

/** Camunda 7 with its REST API behind HTTP Basic, which lives as long as its standard input is open. */
@SpringBootApplication
public class Engine {

  public static void main(String[] arguments) {
    // The tests hold the other end: however they end, the kernel closes it, and no engine is left behind.
    Thread watch = new Thread(Engine::haltAtEndOfInput, "standard-input");
    watch.setDaemon(true);
    watch.start();

    var context =
        (ServletWebServerApplicationContext) SpringApplication.run(Engine.class, arguments);
    System.out.println("engine listening on 127.0.0.1:" + context.getWebServer().getPort());
  }

  private static void haltAtEndOfInput() {
    try {
      while (System.in.read() != -1) {}
    } catch (IOException unreadable) {
      // As good as its end.
    }
    Runtime.getRuntime().halt(0);
  }

  /** As the vendor's Run distribution wires it. */
  @Bean
  FilterRegistrationBean<ProcessEngineAuthenticationFilter> basicAuthentication() {
    var filter = new FilterRegistrationBean<>(new ProcessEngineAuthenticationFilter());
    filter.addInitParameter(
        "authentication-provider", HttpBasicAuthenticationProvider.class.getName());
    filter.addUrlPatterns("/engine-rest/*");
    filter.setAsyncSupported(true);
    return filter;
  }
}
