# syntax=docker/dockerfile:1
# The practice site. Context: the checkout.

FROM golang:1.26-bookworm AS build
WORKDIR /src/lab
COPY lab/go.mod lab/go.sum ./
RUN go mod download
COPY lab ./
RUN CGO_ENABLED=0 go build -buildvcs=false -mod=readonly -trimpath -ldflags '-s -w' \
      -o /out/failback-lab .

FROM debian:12-slim
# The lab makes ext4 file systems on its disks, looks into them and checks them.
RUN apt-get update \
 && apt-get install -y --no-install-recommends e2fsprogs \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /lab failback \
 && install -d -o failback -g failback -m 0700 /lab
COPY --from=build /out/failback-lab /usr/local/bin/failback-lab
# Debian keeps these out of an ordinary user's PATH.
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 10001:10001
WORKDIR /lab
# The simulators keep their inventory in memory: a new start is a new world, and what an earlier one
# left on the volume must not look like it.
ENTRYPOINT ["/bin/sh", "-c", "rm -rf /lab/site && exec failback-lab --root /lab/site \"$@\"", "failback-lab"]
CMD ["--world", "demo"]
