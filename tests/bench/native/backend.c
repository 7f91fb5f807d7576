// A one-thread HTTP/1.1 server that answers every request with the same 1,024 bytes: the cheapest backend, so
// that a measured pair of proxies is most of what runs. Usage: backend ADDRESS PORT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BODY = 1024, EVENTS = 256, BUFFER = 65536 };

static char reply[BODY + 256];
static size_t reply_size;

static int listen_on(const char *address, int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, address, &at.sin_addr);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 1024)) {
    perror("backend");
    exit(1);
  }
  return fd;
}

// The requests that end in this piece of input; a terminator cut in two is found by the state kept per socket.
static int requests_in(const char *data, ssize_t size, unsigned char *state) {
  static const char end[] = "\r\n\r\n";
  int found = 0;
  for (ssize_t i = 0; i < size; i++) {
    *state = data[i] == end[*state] ? *state + 1 : data[i] == '\r';
    if (*state == 4) {
      found++;
      *state = 0;
    }
  }
  return found;
}

static void serve(int epoll, int fd) {
  static char buffer[BUFFER];
  static unsigned char states[65536];
  ssize_t size = read(fd, buffer, sizeof buffer);
  if (size <= 0) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
    close(fd);
    states[fd & 65535] = 0;
    return;
  }
  for (int n = requests_in(buffer, size, &states[fd & 65535]); n > 0; n--)
    if (write(fd, reply, reply_size) < 0)
      return;
}

int main(int argc, char **argv) {
  if (argc != 3)
    return 2;
  reply_size = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n", BODY);
  memset(reply + reply_size, 'x', BODY);
  reply_size += BODY;
  int listener = listen_on(argv[1], atoi(argv[2])), epoll = epoll_create1(0), one = 1;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int n = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.fd != listener) {
        serve(epoll, events[i].data.fd);
        continue;
      }
      int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
      if (fd < 0)
        continue;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
      epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
  }
}
