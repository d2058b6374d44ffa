# syntax=docker/dockerfile:1
# The gateway alone: no shell, no package manager, no root. Configure it by a file at /etc/bpmgate/config.toml
# or by BPMGATE__* variables. tests/deploy/test_image.py runs these lines without a container engine.

# The Rust of `rust-version` in Cargo.toml, and the Debian of the image below: the binary links its C library.
# Not its `slim` kind: jemalloc is built by make.
FROM docker.io/library/rust:1.95-trixie AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Cargo.toml names their files; nothing of them is built.
COPY benches benches
COPY examples examples
COPY tests tests
ARG PROFILE=release
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo install --locked --no-track --path . --root /out/usr/local --profile ${PROFILE}

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /out/ /
# `nonroot` by its number, so that Kubernetes sees that it is not root.
USER 65532:65532
WORKDIR /etc/bpmgate
# The default is the loopback, which nobody outside the container reaches. `admin.listen` stays there.
ENV BPMGATE__SERVER__LISTEN=0.0.0.0:8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/bpmgate", "health"]
ENTRYPOINT ["/usr/local/bin/bpmgate"]
