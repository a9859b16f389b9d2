# The image of klio: one binary, no shell, no package manager, amd64 and arm64.
#
#   docker buildx build --platform linux/amd64,linux/arm64 -t klio .
#
# Not built by this repository's own CI, which has no container engine: what CI proves is the binary (`deno task compile`,
# the same command as below). The runtime inside is the official denort of the same Deno version, which `deno compile`
# downloads here; no other source of it is ever shipped.
#
# The process runs as user 65532. In instance pods Kubernetes sets user 26, the owner of the data directory; klio needs
# no entry in /etc/passwd for either, no capability, and a writable directory only where it is told to write.

FROM docker.io/denoland/deno:2.9.6 AS build
WORKDIR /src
COPY deno.json deno.lock main.ts ./
COPY src ./src
COPY tools ./tools
COPY tests/e2e/smoke.ts ./tests/e2e/smoke.ts
# Compiles for the platform of this stage and proves the result by running it.
RUN deno task compile

FROM gcr.io/distroless/cc-debian12:nonroot
COPY LICENSE /LICENSE
COPY --from=build /src/build/klio /klio
USER 65532:65532
ENTRYPOINT ["/klio"]
