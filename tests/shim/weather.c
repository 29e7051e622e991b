/* Comes between a node and its kernel (LD_PRELOAD), so that an unprivileged test can part real processes and turn their
 * clocks: datagrams are lost or held back by the port that they go to, and the time of day runs ahead or behind. What is to
 * happen stands in a file that the test writes while the node runs; tests/src/weather.rs has its layout. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 4, HELD_MAX = 1024, BYTES_MAX = 65536, CONTROL_MAX = 256, NAP_MICROS = 5000 };

struct weather {
  int64_t clock_ahead_secs;
  uint16_t cut[PORTS];
  uint16_t held[PORTS];
  /* Written here, read by the test. */
  uint64_t lost_count;
  uint64_t held_count;
};

struct message {
  int socket;
  int flags;
  struct sockaddr_storage name;
  socklen_t name_bytes;
  size_t bytes, control_bytes;
  char *data;
  char control[CONTROL_MAX];
};

static struct weather *weather;
static struct message waiting[HELD_MAX];
static int waiting_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);

static int is_among(const uint16_t ports[PORTS], uint16_t port) {
  const volatile uint16_t *now = ports;
  for (int at = 0; at < PORTS; at++)
    if (port != 0 && now[at] == port) return 1;
  return 0;
}

/* 0: none that we know. */
static uint16_t port_of(const void *name) {
  if (name == NULL) return 0;
  switch (((const struct sockaddr *)name)->sa_family) {
  case AF_INET: return ntohs(((const struct sockaddr_in *)name)->sin_port);
  case AF_INET6: return ntohs(((const struct sockaddr_in6 *)name)->sin6_port);
  default: return 0;
  }
}

static size_t bytes_of(const struct msghdr *message) {
  size_t bytes = 0;
  for (size_t at = 0; at < message->msg_iovlen; at++) bytes += message->msg_iov[at].iov_len;
  return bytes;
}

/* 0: there is no room for it, and it is lost. */
static int keep(int socket, const struct msghdr *message, int flags) {
  size_t bytes = bytes_of(message);
  if (waiting_count == HELD_MAX || bytes > BYTES_MAX || message->msg_controllen > CONTROL_MAX ||
      message->msg_namelen > sizeof(struct sockaddr_storage))
    return 0;
  struct message *kept = &waiting[waiting_count];
  kept->data = malloc(bytes ? bytes : 1);
  if (kept->data == NULL) return 0;
  size_t filled = 0;
  for (size_t at = 0; at < message->msg_iovlen; at++) {
    memcpy(kept->data + filled, message->msg_iov[at].iov_base, message->msg_iov[at].iov_len);
    filled += message->msg_iov[at].iov_len;
  }
  kept->socket = socket;
  kept->flags = flags;
  kept->bytes = bytes;
  kept->name_bytes = message->msg_namelen;
  memcpy(&kept->name, message->msg_name, message->msg_namelen);
  kept->control_bytes = message->msg_controllen;
  memcpy(kept->control, message->msg_control, message->msg_controllen);
  waiting_count++;
  return 1;
}

static void deliver(struct message *kept) {
  struct iovec part = {.iov_base = kept->data, .iov_len = kept->bytes};
  struct msghdr message = {.msg_name = &kept->name, .msg_namelen = kept->name_bytes, .msg_iov = &part, .msg_iovlen = 1};
  message.msg_control = kept->control_bytes ? kept->control : NULL;
  message.msg_controllen = kept->control_bytes;
  /* A full buffer loses it, as buffers on the way do. */
  real_sendmsg(kept->socket, &message, kept->flags);
  free(kept->data);
}

/* What is held no longer goes out, the newest first. */
static void *let_through(void *nothing) {
  for (;;) {
    usleep(NAP_MICROS);
    pthread_mutex_lock(&lock);
    for (int at = waiting_count - 1; at >= 0; at--) {
      uint16_t port = port_of(&waiting[at].name);
      if (is_among(weather->held, port)) continue;
      if (is_among(weather->cut, port)) {
        free(waiting[at].data);
        __atomic_add_fetch(&weather->lost_count, 1, __ATOMIC_RELAXED);
      } else {
        deliver(&waiting[at]);
      }
      memmove(&waiting[at], &waiting[at + 1], (size_t)(waiting_count - 1 - at) * sizeof *waiting);
      waiting_count--;
    }
    pthread_mutex_unlock(&lock);
  }
  return nothing;
}

__attribute__((constructor)) static void begin(void) {
  real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  real_sendmsg = (ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
  const char *path = getenv("CLUSTER_TEST_WEATHER");
  int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof *weather, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) abort();
  weather = mapped;
  pthread_t thread;
  if (pthread_create(&thread, NULL, let_through, NULL) != 0) abort();
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (real_clock_gettime == NULL) {
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  }
  int result = real_clock_gettime(clock, time);
  if (weather != NULL && result == 0 && clock == CLOCK_REALTIME)
    time->tv_sec += *(volatile int64_t *)&weather->clock_ahead_secs;
  return result;
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
  if (real_sendmsg == NULL) {
    real_sendmsg = (ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
  }
  uint16_t port = weather == NULL ? 0 : port_of(message->msg_name);
  if (port == 0) return real_sendmsg(socket, message, flags);
  if (is_among(weather->cut, port)) {
    __atomic_add_fetch(&weather->lost_count, 1, __ATOMIC_RELAXED);
    return (ssize_t)bytes_of(message);
  }
  if (!is_among(weather->held, port)) return real_sendmsg(socket, message, flags);
  pthread_mutex_lock(&lock);
  int kept = keep(socket, message, flags);
  pthread_mutex_unlock(&lock);
  __atomic_add_fetch(kept ? &weather->held_count : &weather->lost_count, 1, __ATOMIC_RELAXED);
  return (ssize_t)bytes_of(message);
}
