/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See control_socket.h. What two servers could do to each other at the same path (take a
 * socket that is bound but does not listen yet for a dead one; remove the one that the other
 * has just made) is kept apart by a lock on the folder, held while one of them looks or acts.
 */
#include "vmm/control/control_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 16
/* Servers hold the lock for microseconds; but any process may lock a folder, and keep it. */
#define LOCK_TRIES 100
#define LOCK_PAUSE_NS (10 * NS_PER_MS)

_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) ==
		       sizeof(((struct control_socket *)0)->path), "path is a sun_path");

static int lock_folder(const struct control_socket *s, struct err *e)
{
	static const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
	int rc = flock(s->dir_fd, LOCK_EX | LOCK_NB);

	for (int i = 0; i < LOCK_TRIES && rc < 0 && errno == EWOULDBLOCK; i++) {
		(void)nanosleep(&pause, NULL);
		rc = flock(s->dir_fd, LOCK_EX | LOCK_NB);
	}
	if (rc == 0)
		return 0;
	return err_set(e, -errno, "%s: %.80s: cannot lock its folder: %m; "
		       "use a folder of your own", s->what, s->path);
}

static void unlock_folder(const struct control_socket *s)
{
	(void)flock(s->dir_fd, LOCK_UN);
}

static int open_folder(struct control_socket *s, struct err *e)
{
	const char *slash = strrchr(s->path, '/');
	char folder[sizeof(s->path)] = ".";

	s->name = slash ? slash + 1 : s->path;
	if (slash)
		(void)snprintf(folder, sizeof(folder), "%.*s",
			       slash == s->path ? 1 : (int)(slash - s->path), s->path);
	s->dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0)
		return err_set(e, -errno, "%s: %.80s: its folder: %m%s", s->what, s->path,
			       errno == ENOENT ? "; make it, or name another" : "");
	return 0;
}

static struct sockaddr_un address_of(const struct control_socket *s)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	memcpy(a.sun_path, s->path, sizeof(a.sun_path));
	return a;
}

/* What stands at the path: 0: a socket that nobody answers on; otherwise -Exxx and a text. */
static int check_stale(const struct control_socket *s, struct err *e)
{
	const struct sockaddr_un a = address_of(s);
	struct stat st;
	int fd, rc;

	if (fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(e, -errno, "%s: %.80s: %m; name another", s->what, s->path);
	/* First: connecting to a plain file is refused just as a dead socket refuses. */
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EEXIST, "%s: %.80s: something is there that is no "
			       "socket; remove it, or name another", s->what, s->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, -errno, "%s: %.80s", s->what, s->path);
	rc = connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
	close(fd);
	if (rc == -ECONNREFUSED)
		return 0;
	if (rc == 0 || rc == -EAGAIN)
		return err_set(e, -EADDRINUSE, "%s: %.80s: a running server answers "
			       "there; stop it, or name another", s->what, s->path);
	return err_set(e, rc, "%s: %.80s: a socket is there, and whose cannot be told: "
		       "%s; remove it, or name another", s->what, s->path, strerror(-rc));
}

static int bind_path(const struct control_socket *s)
{
	const struct sockaddr_un a = address_of(s);

	return bind(s->fd, (const struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
}

static int bind_locked(struct control_socket *s, struct err *e)
{
	int rc = bind_path(s);

	if (rc == -EADDRINUSE) {
		rc = check_stale(s, e);
		if (rc < 0)
			return rc;
		if (unlinkat(s->dir_fd, s->name, 0) < 0)
			return err_set(e, -errno, "%s: %.80s: removing the one of a "
				       "dead server: %m; remove it", s->what, s->path);
		rc = bind_path(s);
	}
	if (rc < 0)
		return err_sys(e, rc, "%s: %.80s", s->what, s->path);
	return 0;
}

/* With the lock: from here on, a path that refuses connections belongs to nobody. */
static int publish_locked(struct control_socket *s, struct err *e)
{
	struct stat st;
	int rc = bind_locked(s, e);

	if (rc < 0)
		return rc;
	if (listen(s->fd, BACKLOG) < 0 ||
	    fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		rc = err_sys(e, -errno, "%s: %.80s", s->what, s->path);
		(void)unlinkat(s->dir_fd, s->name, 0);
		return rc;
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

static int publish(struct control_socket *s, struct err *e)
{
	int rc;

	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return err_sys(e, -errno, "%s: %.80s", s->what, s->path);
	/*
	 * Before bind: Linux gives the file the socket's own mode, so there is no moment in
	 * which others may connect. A umask would do, but it is every thread's.
	 */
	rc = fchmod(s->fd, 0600) < 0 ? err_sys(e, -errno, "%s: %.80s: mode", s->what, s->path)
				     : lock_folder(s, e);
	if (rc == 0) {
		rc = publish_locked(s, e);
		unlock_folder(s);
	}
	if (rc < 0)
		close(s->fd);
	return rc;
}

int control_socket_open(struct control_socket *s, const char *what, const char *path,
			struct err *e)
{
	size_t len = strlen(path);
	int rc;

	memset(s, 0, sizeof(*s));
	s->what = what;
	if (len == 0 || len >= sizeof(s->path))
		return err_set(e, -ENAMETOOLONG, "%s: %.80s: a path of %zu bytes; at "
			       "most %zu are possible, use a shorter one", s->what, path, len,
			       sizeof(s->path) - 1);
	memcpy(s->path, path, len + 1);
	rc = open_folder(s, e);
	if (rc < 0)
		return rc;
	rc = publish(s, e);
	if (rc < 0)
		close(s->dir_fd);
	return rc;
}

void control_socket_close(struct control_socket *s)
{
	struct stat st;

	/* Without the lock it stays: a dead socket is replaced, another server's must not go. */
	if (lock_folder(s, NULL) == 0) {
		if (fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    st.st_dev == s->dev && st.st_ino == s->ino)
			(void)unlinkat(s->dir_fd, s->name, 0);
		unlock_folder(s);
	}
	close(s->fd);
	close(s->dir_fd);
}
