// Offers requests at a fixed rate over a fixed number of connections, whatever the answers do, and prints how
// many were answered and how long they took, counted from the moment each should have been sent.
// Usage: openloop ADDRESS PORT HOST CONNECTIONS RATE SECONDS
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 256, QUEUE = 4096, EVENTS = 256, BODY = 1024 };

typedef struct {
  int fd;
  double due[QUEUE];
  unsigned head, tail;
  unsigned char state;
  long skip;
} Connection;

static Connection connections[MAX_CONNECTIONS];
static double *latencies;
static long answered, errors;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static int dial(const char *address, int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, address, &at.sin_addr);
  if (connect(fd, (struct sockaddr *)&at, sizeof at)) {
    perror("openloop");
    exit(1);
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

// Counts answers: the end of a head, then a body of known size.
static void take(Connection *c, const char *data, ssize_t size, double at) {
  static const char end[] = "\r\n\r\n";
  for (ssize_t i = 0; i < size; i++) {
    if (c->skip > 0) {
      long step = c->skip < size - i ? c->skip : size - i;
      c->skip -= step;
      i += step - 1;
      if (c->skip == 0 && c->head != c->tail)
        latencies[answered++] = at - c->due[c->head++ % QUEUE];
      continue;
    }
    c->state = data[i] == end[c->state] ? c->state + 1 : data[i] == '\r';
    if (c->state == 4) {
      c->state = 0;
      c->skip = BODY;
    }
  }
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc != 7)
    return 2;
  int count = atoi(argv[4]);
  double rate = atof(argv[5]), seconds = atof(argv[6]);
  if (count < 1 || count > MAX_CONNECTIONS)
    return 2;
  latencies = calloc((size_t)(rate * seconds) + 16, sizeof *latencies);
  char request[512], buffer[65536];
  int size = snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", argv[3]);
  int epoll = epoll_create1(0);
  for (int i = 0; i < count; i++) {
    connections[i].fd = dial(argv[1], atoi(argv[2]));
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].fd, &event);
  }
  double start = now(), stop = start + seconds;
  long sent = 0, total = rate * seconds;
  struct epoll_event events[EVENTS];
  for (double t = start; t < stop + 1 && answered + errors < total; t = now()) {
    while (sent < total && start + sent / rate <= t) {
      Connection *c = &connections[sent % count];
      if (c->tail - c->head >= QUEUE || write(c->fd, request, size) != size)
        errors++;
      else
        c->due[c->tail++ % QUEUE] = start + sent / rate;
      sent++;
    }
    double next = sent < total ? start + sent / rate - now() : 0.01;
    struct timespec wait = {.tv_nsec = next > 0 ? (long)(next * 1e9) : 0};
    int n = epoll_pwait2(epoll, events, EVENTS, &wait, NULL);
    for (int i = 0; i < n; i++) {
      Connection *c = &connections[events[i].data.u32];
      ssize_t got = read(c->fd, buffer, sizeof buffer);
      if (got <= 0) {
        fprintf(stderr, "openloop: connection closed\n");
        return 1;
      }
      take(c, buffer, got, now());
    }
  }
  qsort(latencies, answered, sizeof *latencies, ascending);
  printf("{\"sent\": %ld, \"answered\": %ld, \"errors\": %ld, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", sent, answered, errors,
         answered ? latencies[answered / 2] * 1e6 : 0, answered ? latencies[answered * 99 / 100] * 1e6 : 0);
  return 0;
}
