/* A libvixDiskLib whose disks are files: what nbdkit's VDDK plugin calls of the public API.
 *
 * Everything about it stands in the folder `fake` below the library folder it is started with:
 *
 *   disks     lines of "<snapshot or ->\t<[datastore] folder/name.vmdk>\t<file>"
 *   expect    lines "key=value": user, thumbprint, vm, server, transports; what is there must match
 *   password  the password, without a line end
 *   control   lines "key=value", read anew at every call; see the uses of `control` below
 *   hang      while it exists, no request is answered
 *   log       one line for every call, appended
 *
 * It refuses what the real one refuses or should not be asked: requests over 2 MiB or beyond the
 * end, writing what was opened for reading, a second writer of a disk.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

typedef uint64_t VixError;
enum {
  OK = 0,
  FAIL = 1,
  INVALID_ARG = 3,
  FILE_NOT_FOUND = 4,
  NOT_SUPPORTED = 6,
  FILE_ERROR = 7,
  NO_ACCESS = 13,
  READ_ONLY = 16,
  HOST_PERMISSIONS = 3014,
  REFUSED = 14009,
  OUT_OF_RANGE = 16006,
  NOT_LICENSED = 16064,
  LOCKED = 16392,
  NO_CONNECTION = 18000,
  ASYNC = 25000
};
enum { SECTOR = 512, MAX_SECTORS = 2 * 1024 * 1024 / SECTOR, WORKERS = 8 };
enum { OPEN_READ_ONLY = 4 };

/* The layouts of the public header, as far as the plugin reads and writes them. */
typedef struct {
  char *vmx_spec, *server, *thumbprint;
  long reserved1;
  int cred_type;
  union {
    struct { char *user, *password; } uid;
    struct { char *cookie, *user, *key; } session;
    void *reserved2;
  } creds;
  uint32_t port, nfc_port;
  char *reserved3, reserved4[8];
  void *reserved5;
  struct { char *id, *datastore, *snapshot; } object;
  int spec_type;
} ConnectParams;

typedef struct {
  uint32_t bios[3], physical[3];
  uint64_t capacity;
  int adapter, links;
  char *parent, *uuid;
  uint32_t logical_sector, physical_sector;
} Info;

typedef struct { uint64_t offset, length; } Block;
typedef struct { uint32_t count; Block blocks[1]; } BlockList;
typedef void LogFunc(const char *format, va_list arguments);
typedef void (*Done)(void *data, VixError result);

typedef struct {
  ConnectParams params;
  bool read_only;
  char snapshot[128], modes[128];
} Connection;

typedef struct {
  int fd;
  bool writable;
  uint64_t sectors;
  int pending;
} Disk;

typedef struct Request {
  struct Request *next;
  Disk *disk;
  bool write;
  uint64_t sector, count;
  void *buffer;
  Done done;
  void *data;
} Request;

static char root[4096];
static LogFunc *warn;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static Request *first, **last = &first;
static int reads, writes, flushes;
static bool started;

/* --- files --- */

static FILE *open_file(const char *name, const char *mode)
{
  char path[4200];
  snprintf(path, sizeof path, "%s/fake/%s", root, name);
  return fopen(path, mode);
}

static void note(const char *format, ...)
{
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  if (length > (int)sizeof line - 2) length = sizeof line - 2;
  line[length++] = '\n';
  FILE *file = open_file("log", "a");
  if (file == NULL) return;
  /* One write, so that lines of several processes do not mix. */
  if (write(fileno(file), line, length) != length) abort();
  fclose(file);
}

/* The value of a key in a file of "key=value" lines; false where there is none. */
static bool value_of(const char *name, const char *key, char *into, size_t size)
{
  char line[1024];
  bool found = false;
  size_t length = strlen(key);
  FILE *file = open_file(name, "r");
  if (file == NULL) return false;
  while (!found && fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    found = strncmp(line, key, length) == 0 && line[length] == '=';
    if (found) snprintf(into, size, "%s", line + length + 1);
  }
  fclose(file);
  return found;
}

static long control(const char *key)
{
  char text[64];
  return value_of("control", key, text, sizeof text) ? atol(text) : 0;
}

static void complain(const char *format, ...)
{
  va_list arguments;
  va_start(arguments, format);
  if (warn != NULL) warn(format, arguments);
  va_end(arguments);
}

static bool as_expected(const char *key, const char *given)
{
  char wanted[1024];
  if (!value_of("expect", key, wanted, sizeof wanted)) return true;
  if (given != NULL && strcmp(given, wanted) == 0) return true;
  note("unexpected %s", key);
  return false;
}

static bool password_is_right(const char *given)
{
  char wanted[1024] = "";
  FILE *file = open_file("password", "r");
  if (file == NULL) return true;
  size_t length = fread(wanted, 1, sizeof wanted - 1, file);
  fclose(file);
  return given != NULL && strlen(given) == length && memcmp(given, wanted, length) == 0;
}

static bool file_of(const char *snapshot, const char *name, char *into, size_t size)
{
  char line[4096], wanted[2048];
  bool found = false;
  snprintf(wanted, sizeof wanted, "%s\t%s\t", snapshot[0] ? snapshot : "-", name);
  FILE *file = open_file("disks", "r");
  if (file == NULL) return false;
  while (!found && fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    found = strncmp(line, wanted, strlen(wanted)) == 0;
    if (found) snprintf(into, size, "%s", line + strlen(wanted));
  }
  fclose(file);
  return found;
}

/* --- requests --- */

static VixError move(Request *one)
{
  size_t left = one->count * SECTOR;
  off_t at = (off_t)one->sector * SECTOR;
  char *buffer = one->buffer;
  while (left > 0) {
    ssize_t count = one->write ? pwrite(one->disk->fd, buffer, left, at)
                               : pread(one->disk->fd, buffer, left, at);
    if (count <= 0) return FILE_ERROR;
    buffer += count, at += count, left -= count;
  }
  return OK;
}

static VixError perform(Request *one)
{
  char path[4200];
  snprintf(path, sizeof path, "%s/fake/hang", root);
  while (access(path, F_OK) == 0) usleep(5000);
  usleep(1000 * control("delay_ms"));
  pthread_mutex_lock(&lock);
  int number = one->write ? ++writes : ++reads;
  pthread_mutex_unlock(&lock);
  if (number == control(one->write ? "fail_write" : "fail_read")) {
    note("failed %s %d", one->write ? "write" : "read", number);
    return FILE_ERROR;
  }
  return move(one);
}

static void *work(void *unused)
{
  (void)unused;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (first == NULL) pthread_cond_wait(&changed, &lock);
    Request *one = first;
    first = one->next;
    if (first == NULL) last = &first;
    pthread_mutex_unlock(&lock);
    VixError result = perform(one);
    /* Before the caller hears: nobody sees more under way than there is. */
    note("end %s %lu", one->write ? "write" : "read", (unsigned long)(one->count * SECTOR));
    one->done(one->data, result);
    pthread_mutex_lock(&lock);
    one->disk->pending--;
    pthread_cond_broadcast(&changed);
    free(one);
  }
  return NULL;
}

static VixError submit(Disk *disk, uint64_t sector, uint64_t count, void *buffer, Done done,
                       void *data, bool write)
{
  const char *word = write ? "write" : "read";
  if (count == 0 || count > MAX_SECTORS) {
    note("violation %s of %lu sectors", word, (unsigned long)count);
    return INVALID_ARG;
  }
  if (sector > disk->sectors || count > disk->sectors - sector) {
    note("violation %s beyond the end", word);
    return OUT_OF_RANGE;
  }
  if (write && !disk->writable) {
    note("violation write to a disk opened for reading");
    return READ_ONLY;
  }
  note("begin %s %lu at %lu", word, (unsigned long)(count * SECTOR),
       (unsigned long)(sector * SECTOR));
  Request *one = calloc(1, sizeof *one);
  *one = (Request){NULL, disk, write, sector, count, buffer, done, data};
  pthread_mutex_lock(&lock);
  if (!started) {
    started = true;
    for (int i = 0; i < WORKERS; i++) {
      pthread_t thread;
      pthread_create(&thread, NULL, work, NULL);
      pthread_detach(thread);
    }
  }
  disk->pending++;
  *last = one;
  last = &one->next;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return ASYNC;
}

/* --- the interface --- */

VixError VixDiskLib_InitEx(uint32_t major, uint32_t minor, LogFunc *log, LogFunc *warning,
                           LogFunc *panic, const char *folder, const char *config)
{
  (void)log, (void)panic, (void)config;
  warn = warning;
  snprintf(root, sizeof root, "%s", folder);
  note("init %u.%u by %d", major, minor, (int)getpid());
  return OK;
}

void VixDiskLib_Exit(void) { note("exit"); }

char *VixDiskLib_GetErrorText(VixError error, const char *locale)
{
  (void)locale;
  switch (error & 0xffff) {
  case INVALID_ARG: return strdup("One of the parameters was invalid");
  case FILE_NOT_FOUND: return strdup("A file was not found");
  case NOT_SUPPORTED: return strdup("The operation is not supported");
  case FILE_ERROR: return strdup("A file access error occurred on the host");
  case NO_ACCESS: return strdup("You do not have access rights to this file");
  case READ_ONLY: return strdup("The file is write-protected");
  case HOST_PERMISSIONS: return strdup("Insufficient permissions in the host operating system");
  case REFUSED: return strdup("The server refused connection");
  case OUT_OF_RANGE: return strdup("You have requested access to an area of the virtual disk that"
                                   " is out of bounds");
  case NOT_LICENSED: return strdup("The host is not licensed for this feature");
  case LOCKED: return strdup("Failed to lock the file");
  case NO_CONNECTION: return strdup("Cannot connect to the host");
  default: return strdup("Unknown error");
  }
}

void VixDiskLib_FreeErrorText(char *text) { free(text); }

ConnectParams *VixDiskLib_AllocateConnectParams(void) { return calloc(1, sizeof(ConnectParams)); }

void VixDiskLib_FreeConnectParams(ConnectParams *params) { free(params); }

VixError VixDiskLib_ConnectEx(const ConnectParams *params, char read_only, const char *snapshot,
                              const char *modes, Connection **connection)
{
  note("connect vm=%s snapshot=%s transports=%s read-only=%d", params->vmx_spec,
       snapshot ? snapshot : "-", modes ? modes : "-", read_only);
  if (control("connect_code")) return control("connect_code");
  if (!as_expected("server", params->server)) return NO_CONNECTION;
  if (!as_expected("transports", modes)) return INVALID_ARG;
  Connection *made = calloc(1, sizeof *made);
  made->params = *params;
  made->read_only = read_only;
  snprintf(made->snapshot, sizeof made->snapshot, "%s", snapshot ? snapshot : "");
  *connection = made;
  return OK;
}

VixError VixDiskLib_Disconnect(Connection *connection)
{
  note("disconnect");
  free(connection);
  return OK;
}

/* The certificate, the account and the VM are looked at when a disk is opened, as in the real one. */
static VixError admit(const Connection *connection, const char *name)
{
  const ConnectParams *params = &connection->params;
  char text[512];
  usleep(1000 * control("open_delay_ms"));
  if (!as_expected("thumbprint", params->thumbprint)) return FAIL;
  if (!as_expected("user", params->creds.uid.user)
      || !password_is_right(params->creds.uid.password)) {
    complain("VixDiskLibVim: Login failure. Callback error 3014.");
    if (control("leak")) complain("VixDiskLibVim: tried %s", params->creds.uid.password);
    return HOST_PERMISSIONS;
  }
  if (!as_expected("vm", params->vmx_spec)) return FILE_NOT_FOUND;
  if (control("open_code")) {
    if (value_of("control", "open_text", text, sizeof text)) complain("%s", text);
    note("open of %s refused", name);
    return control("open_code");
  }
  return OK;
}

VixError VixDiskLib_Open(const Connection *connection, const char *name, uint32_t flags,
                         Disk **handle)
{
  char path[4096];
  struct stat found;
  note("open %s flags=%u", name, flags);
  VixError error = admit(connection, name);
  if (error != OK) return error;
  if (!file_of(connection->snapshot, name, path, sizeof path)) return FILE_NOT_FOUND;
  bool writable = !connection->read_only && !(flags & OPEN_READ_ONLY);
  if (writable && connection->snapshot[0]) return READ_ONLY;
  int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  if (fd == -1) return errno == ENOENT ? FILE_NOT_FOUND : NO_ACCESS;
  if (flock(fd, (writable ? LOCK_EX : LOCK_SH) | LOCK_NB) == -1) {
    close(fd);
    return LOCKED;
  }
  if (fstat(fd, &found) == -1) abort();
  Disk *disk = calloc(1, sizeof *disk);
  *disk = (Disk){fd, writable, found.st_size / SECTOR, 0};
  *handle = disk;
  note("opened %s", writable ? "for writing" : "for reading");
  return OK;
}

VixError VixDiskLib_Close(Disk *disk)
{
  note("close");
  close(disk->fd);
  free(disk);
  return OK;
}

const char *VixDiskLib_GetTransportMode(Disk *disk) { (void)disk; return "nbdssl"; }

VixError VixDiskLib_GetInfo(Disk *disk, Info **info)
{
  *info = calloc(1, sizeof **info);
  (*info)->capacity = disk->sectors;
  (*info)->adapter = 3;
  (*info)->links = 1;
  (*info)->logical_sector = (*info)->physical_sector = SECTOR;
  return OK;
}

void VixDiskLib_FreeInfo(Info *info) { free(info); }

VixError VixDiskLib_ReadAsync(Disk *disk, uint64_t sector, uint64_t count, unsigned char *buffer,
                              Done done, void *data)
{
  return submit(disk, sector, count, buffer, done, data, false);
}

VixError VixDiskLib_WriteAsync(Disk *disk, uint64_t sector, uint64_t count,
                               const unsigned char *buffer, Done done, void *data)
{
  return submit(disk, sector, count, (void *)buffer, done, data, true);
}

#ifndef FAKE_TOO_OLD
VixError VixDiskLib_Wait(Disk *disk)
{
  pthread_mutex_lock(&lock);
  while (disk->pending > 0) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  return OK;
}
#endif

VixError VixDiskLib_Flush(Disk *disk)
{
  note("flush");
  if (++flushes == control("fail_flush")) return FILE_ERROR;
  return fdatasync(disk->fd) == 0 ? OK : FILE_ERROR;
}

/* Synchronous forms: the plugin wants them to be there and calls the others. */
VixError VixDiskLib_Read(Disk *disk, uint64_t sector, uint64_t count, unsigned char *buffer)
{
  (void)disk, (void)sector, (void)count, (void)buffer;
  return NOT_SUPPORTED;
}

VixError VixDiskLib_Write(Disk *disk, uint64_t sector, uint64_t count, const unsigned char *buffer)
{
  (void)disk, (void)sector, (void)count, (void)buffer;
  return NOT_SUPPORTED;
}

VixError VixDiskLib_Create(Connection *connection, const char *name, const void *params,
                           void *progress, void *data)
{
  (void)connection, (void)name, (void)params, (void)progress, (void)data;
  return NOT_SUPPORTED;
}

const char *VixDiskLib_ListTransportModes(void) { return "file:nbdssl:nbd"; }

VixError VixDiskLib_QueryAllocatedBlocks(Disk *disk, uint64_t sector, uint64_t count,
                                         uint64_t chunk, BlockList **list)
{
  note("extents %lu at %lu", (unsigned long)(count * SECTOR), (unsigned long)(sector * SECTOR));
  if (control("no_extents")) return NOT_SUPPORTED;
  uint64_t end = sector + count < disk->sectors ? sector + count : disk->sectors;
  uint64_t most = (end > sector ? end - sector : 0) / chunk + 2;
  *list = calloc(1, sizeof **list + most * sizeof(Block));
  for (uint64_t at = sector; at < end; at += chunk) {
    off_t data = lseek(disk->fd, at * SECTOR, SEEK_DATA);
    uint64_t here = at + chunk < end ? at + chunk : end;
    if (data == -1 || (uint64_t)data >= here * SECTOR) continue;
    (*list)->blocks[(*list)->count++] = (Block){at, here - at};
  }
  return OK;
}

VixError VixDiskLib_FreeBlockList(BlockList *list)
{
  free(list);
  return OK;
}
