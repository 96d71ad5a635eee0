/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP and HTTPS by libcurl's multi interface: a peer of peer.h. The object is opened with a
 * request for its first byte, which tells its size, and what it is known by from then on (its
 * ETag, else the time of its last change): every later request names that, and every answer must
 * have it, so that bytes of two versions never come together. Owns a multi handle, and an easy
 * handle for each request under way. An object of an S3 store is one with another URL, and
 * headers that are made anew for each request (s3.h). Threads: the loop's alone. Test:
 * tests/integration/net_{servers,http,s3}_test.c.
 *
 * What is done about an answer is in finish(); what is done about a connection is libcurl's.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/assert.h"
#include "base/time.h"
#include "net/http_handle.h"
#include "net/http_head.h"
#include "net/peer.h"
#include "net/s3.h"

#define HTTP_CONNECTIONS 32u
#define HTTP_DEPTH 64u
#define HTTP_REQ_BYTES (2u << 20)
#define HTTP_CONNECT_MS 5000u
#define HTTP_STALL_MS 5000u
/* Slower than that is as good as nothing, of a whole request. */
#define HTTP_BYTES_PER_MS 32u
#define HTTP_PAUSE_NS (50 * NS_PER_MS)
#define HTTP_PAUSE_MAX_NS (2 * NS_PER_S)
/* As many in a row without an answer: it is the server. */
#define HTTP_FAILS 2u
#define HTTP_RETRY_AFTER_MAX_S 30
/* Of a request that was begun and came to nothing, or to a status of 500 and its like. */
#define HTTP_TRIES 6u
/* An answer with less than that of a longer range counts as a try: crumbs have an end. */
#define HTTP_PART_MIN 4096u
/* Of an error's page, which is read so that the connection can be used again. */
#define HTTP_PAGE_BYTES (64u << 10)
#define HTTP_PAGE_MAX 511u
/* Without it a server may choose. */
#define HTTP_ENCODING "Accept-Encoding: identity"

struct http_xfer {
	struct http_peer *peer;
	CURL *easy;
	struct net_req *req; /* NULL: it is the one that opens */
	bool busy;
	uint64_t offset, len; /* that are asked for */
	bool checked;         /* the head is that of what was asked for */
	uint64_t got;         /* bytes of the body */
	struct http_head head;
	struct err why;       /* code < 0: we have ended it */
	bool moved;           /* asked for where the object was found */
	unsigned keys;        /* S3: which it was signed with, by s3_keys() */
	struct curl_slist *headers;  /* S3: of this request */
	char page[HTTP_PAGE_MAX + 1]; /* how an error's begins */
	size_t page_len;
	char text[CURL_ERROR_SIZE];
};

struct http_peer {
	struct net_peer peer;
	const struct net_target *target;
	CURLM *multi;
	struct timer timer; /* libcurl's */
	struct timer again; /* opening is tried again */
	struct http_xfer *xfers;
	unsigned depth, limit, busy;
	unsigned fails;  /* "later", since a read was answered */
	unsigned tries;  /* of opening, that have failed */
	bool two;        /* the server speaks HTTP/2 */
	bool blind;      /* a connection cannot be waited for */
	char *moved;     /* where the object was found; NULL: where the URL says */
	uint64_t size;
	struct http_head pin;
	struct curl_slist *headers; /* of each request, but for S3: with what it is known by */
	char known_by[HTTP_TAG_MAX + 32]; /* the same for S3; empty: nothing yet */
	struct s3 *s3;   /* NULL: a plain URL */
};

static struct http_peer *peer_of(struct net_peer *p)
{
	return CONTAINER_OF(p, struct http_peer, peer);
}

static struct net_loop *loop_of(const struct http_peer *p)
{
	return net_src_loop(p->peer.src);
}

static uint32_t stall_ms(const struct http_peer *p)
{
	return p->target->stall_ms ? p->target->stall_ms : HTTP_STALL_MS;
}

/* ---- an answer comes in ---- */

static long status_of(const struct http_xfer *x)
{
	long status = 0;

	(void)curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

static const char sends_all[] = "the server sends the whole object (200), and not the range";

static bool wrong(struct http_xfer *x, const char *what)
{
	(void)err_set(&x->why, -EPROTO, "%s", what);
	return false;
}

static bool changed(struct http_xfer *x, const char *what)
{
	(void)err_set(&x->why, -ESTALE, "the object has changed since it was opened: %s", what);
	return false;
}

/* The head of a 206. False: x->why says why it is not for us. */
static bool check_head(struct http_xfer *x)
{
	const struct http_peer *p = x->peer;
	const struct http_head *h = &x->head;

	if (h->bad || !h->ranged)
		return wrong(x, "the server's answer (206) does not say what bytes it has");
	if (h->encoded)
		return wrong(x, "the server sends the object encoded (Content-Encoding)");
	if (h->first != x->offset || h->last - h->first >= x->len) {
		(void)err_set(&x->why, -EPROTO, "the server sends bytes %llu to %llu, %llu to %llu "
			      "were asked for", (unsigned long long)h->first,
			      (unsigned long long)h->last, (unsigned long long)x->offset,
			      (unsigned long long)(x->offset + x->len - 1));
		return false;
	}
	if (!x->req)
		return true;
	if (h->total != 0 && h->total != p->size)
		return changed(x, "its size is another");
	if (p->pin.etag[0] && strcmp(p->pin.etag, h->etag) != 0)
		return changed(x, h->etag[0] ? "its ETag is another" : "its ETag is gone");
	if (!p->pin.etag[0] && strcmp(p->pin.modified, h->modified) != 0)
		return changed(x, "the time of its last change is another");
	return true;
}

static size_t on_header(char *data, size_t one, size_t len, void *ctx)
{
	struct http_xfer *x = ctx;

	http_head_line(&x->head, data, len * one);
	return len * one;
}

static size_t on_body(char *data, size_t one, size_t len, void *ctx)
{
	struct http_xfer *x = ctx;
	long status = status_of(x);

	len *= one;
	if (status == 200)
		return wrong(x, sends_all);
	if (status != 206) {
		size_t n = min_u64(len, HTTP_PAGE_MAX - x->page_len);

		memcpy(x->page + x->page_len, data, n);
		x->page_len += n;
		x->page[x->page_len] = '\0';
		x->got += len;
		return x->got <= HTTP_PAGE_BYTES ? len : 0;
	}
	if (!x->checked && !check_head(x))
		return 0;
	x->checked = true;
	if (len > x->head.last - x->head.first + 1 - x->got)
		return wrong(x, "the server sends more bytes than it said");
	if (x->req)
		net_req_put(x->req, x->offset - x->req->offset + x->got, data, len);
	x->got += len;
	return len;
}

/* ---- what is made of it ---- */

enum verdict {
	GOOD,
	MORE,    /* good as far as it goes (RFC 9110, 15.3.7): the rest is to be asked for */
	REFUSED, /* as long as nobody changes something; x->why says why */
	LATER,   /* the server is not there, or says so: it is waited for */
	AGAIN,   /* this one went wrong */
};

static enum verdict refused(struct http_xfer *x, int code, const char *why)
{
	(void)err_set(&x->why, code, "%s", why);
	return REFUSED;
}

/* What stores say by 400 of credentials, and of signed URLs, that were good. */
static bool is_expired(const char *code)
{
	return strcmp(code, " ExpiredToken") == 0 || strcmp(code, " TokenRefreshRequired") == 0 ||
	       strcmp(code, " InvalidToken") == 0;
}

static enum verdict no_access(struct http_xfer *x, long status)
{
	char code[S3_CODE_MAX + 2];

	(void)err_set(&x->why, -EACCES, "the server refuses access (%ld%s)", status,
		      s3_code(x->page, code));
	return REFUSED;
}

/* A status that is none of those that have a meaning for a range. */
static enum verdict judge_other(struct http_xfer *x, long status)
{
	char code[S3_CODE_MAX + 2];

	if (status == 400 && is_expired(s3_code(x->page, code)))
		return no_access(x, status);
	/* Where a bucket is elsewhere, whatever the status is. */
	if (x->peer->s3 && x->head.region[0] && !x->head.bad)
		(void)err_set(&x->why, -EIO, "the bucket is in the region %.40s, say "
			      "region=%.40s (%ld%s)", x->head.region, x->head.region, status,
			      s3_code(x->page, code));
	else
		(void)err_set(&x->why, -EIO, "the server says status %ld%s, which is none for a "
			      "range", status, s3_code(x->page, code));
	return REFUSED;
}

static enum verdict judge_status(struct http_xfer *x, long status)
{
	char code[S3_CODE_MAX + 2];

	switch (status) {
	case 206:
		if (x->got == x->len)
			return GOOD;
		(void)err_set(&x->why, -EIO, "the server sent %llu bytes of %llu",
			      (unsigned long long)x->got, (unsigned long long)x->len);
		return x->checked && x->got == x->head.last - x->head.first + 1 ? MORE : AGAIN;
	case 200:
		return refused(x, -EPROTO, sends_all);
	case 401:
	case 403:
	case 407:
		return no_access(x, status);
	case 404:
	case 410:
		(void)err_set(&x->why, -ENOENT, "the server knows no such object (%ld%s)", status,
			      s3_code(x->page, code));
		return REFUSED;
	case 412:
		return refused(x, -ESTALE, "the object has changed since it was opened (412)");
	case 416:
		return x->req ? refused(x, -ESTALE, "the object has become shorter (416)")
			      : refused(x, -EINVAL, "the object is empty (416)");
	case 429:
	case 503:
		(void)err_set(&x->why, -EAGAIN, "the server has no time (%ld)", status);
		return LATER;
	case 408:
	case 500:
	case 502:
	case 504:
		(void)err_set(&x->why, -EIO, "the server says status %ld", status);
		return AGAIN;
	default:
		return judge_other(x, status);
	}
}

static enum verdict judge(struct http_xfer *x, CURLcode result)
{
	if (x->why.code < 0)
		return REFUSED;
	if (result == CURLE_OK)
		return judge_status(x, status_of(x));
	(void)err_set(&x->why, -EIO, "%s", x->text[0] ? x->text : curl_easy_strerror(result));
	switch (result) {
	case CURLE_ABORTED_BY_CALLBACK: /* look()'s */
		(void)err_set(&x->why, -EMFILE, "the process has no descriptor left to wait for "
			      "the server with (ulimit -n)");
		return LATER;
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
		return LATER;
	case CURLE_OPERATION_TIMEDOUT:
		return x->got > 0 || !x->req ? AGAIN : LATER;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PARTIAL_FILE:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
	case CURLE_WEIRD_SERVER_REPLY:
		return AGAIN;
	case CURLE_UNSUPPORTED_PROTOCOL: /* no HTTP; or a redirect out of it */
		return status_of(x) == 0 ? AGAIN : REFUSED;
	case CURLE_WRITE_ERROR: /* a page without end */
		return judge_status(x, status_of(x));
	default:
		return REFUSED;
	}
}

static uint64_t retry_after_ns(const struct http_xfer *x)
{
	curl_off_t s = 0;

	(void)curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &s);
	return s > 0 ? min_u64((uint64_t)s, HTTP_RETRY_AFTER_MAX_S) * NS_PER_S : 0;
}

/* Until when nothing is to be asked for. 0: a few of many say nothing of the others. */
static uint64_t later(struct http_xfer *x)
{
	struct http_peer *p = x->peer;
	uint64_t wait = retry_after_ns(x);

	if (wait == 0 && p->fails >= HTTP_FAILS)
		wait = net_backoff_ns(p->fails - HTTP_FAILS, HTTP_PAUSE_NS, HTTP_PAUSE_MAX_NS);
	p->fails += p->fails < 32;
	return wait ? monotonic_ns() + wait : 0;
}

/* ---- requests ---- */

static bool prepare(struct http_xfer *x)
{
	struct http_peer *p = x->peer;

	if (x->easy)
		return true;
	x->easy = http_handle_make(p->target, stall_ms(p));
	if (x->easy && curl_easy_setopt(x->easy, CURLOPT_PRIVATE, x) == CURLE_OK &&
	    curl_easy_setopt(x->easy, CURLOPT_ERRORBUFFER, x->text) == CURLE_OK &&
	    curl_easy_setopt(x->easy, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
	    curl_easy_setopt(x->easy, CURLOPT_HEADERDATA, x) == CURLE_OK &&
	    curl_easy_setopt(x->easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
	    curl_easy_setopt(x->easy, CURLOPT_WRITEDATA, x) == CURLE_OK)
		return true;
	curl_easy_cleanup(x->easy);
	x->easy = NULL;
	return false;
}

static struct http_xfer *free_xfer(struct http_peer *p)
{
	for (unsigned i = 0; i < p->depth; i++)
		if (!p->xfers[i].busy)
			return &p->xfers[i];
	return NULL;
}

static bool add_line(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (longer)
		*list = longer;
	return longer != NULL;
}

static bool add_header(struct http_xfer *x, const char *name, const char *value)
{
	char line[AWS_TOKEN_MAX + 64];
	bool added;

	snprintf(line, sizeof(line), "%s: %s", name, value);
	added = add_line(&x->headers, line);
	explicit_bzero(line, sizeof(line));
	return added;
}

/* For S3; the list is of the request that begins. */
static bool make_headers(struct http_xfer *x, const char *range)
{
	struct http_peer *p = x->peer;
	struct aws_signed sig;
	char bytes[80];

	curl_slist_free_all(x->headers);
	x->headers = NULL;
	snprintf(bytes, sizeof(bytes), "bytes=%s", range);
	if (s3_sign(p->s3, bytes, &sig, NULL) < 0)
		return false;
	return add_line(&x->headers, HTTP_ENCODING) &&
	       (!p->known_by[0] || add_line(&x->headers, p->known_by)) &&
	       add_header(x, "x-amz-date", sig.date) &&
	       add_header(x, "x-amz-content-sha256", AWS_EMPTY_SHA256) &&
	       add_header(x, "authorization", sig.authorization) &&
	       (!s3_token(p->s3) || add_header(x, "x-amz-security-token", s3_token(p->s3)));
}

static const char *url_of(const struct http_peer *p)
{
	return p->s3 ? s3_url(p->s3) : p->moved ? p->moved : p->target->url;
}

static bool ask(struct http_xfer *x, uint64_t offset, uint64_t len)
{
	struct http_peer *p = x->peer;
	long limit_ms = (long)(stall_ms(p) + len / HTTP_BYTES_PER_MS);
	long connect_ms = (long)min_u64(p->target->connect_ms, HTTP_CONNECT_MS);
	char range[64];
	CURL *c;

	if (!prepare(x))
		return false;
	c = x->easy;
	x->offset = offset;
	x->len = len;
	x->checked = false;
	x->got = 0;
	x->page_len = 0;
	x->page[0] = '\0';
	x->head = (struct http_head){.ranged = false};
	x->why.code = 0;
	x->text[0] = '\0';
	x->moved = p->moved != NULL;
	x->keys = p->s3 ? s3_keys(p->s3) : 0;
	snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)offset,
		 (unsigned long long)(offset + len - 1));
	/* While the source is being opened, the hub's own limit of time counts. */
	if (!x->req)
		limit_ms = connect_ms = 2L * NET_MS_MAX;
	if (p->s3 && !make_headers(x, range))
		return false;
	if (curl_easy_setopt(c, CURLOPT_RANGE, range) != CURLE_OK ||
	    curl_easy_setopt(c, CURLOPT_URL, url_of(p)) != CURLE_OK ||
	    curl_easy_setopt(c, CURLOPT_HTTPHEADER, p->s3 ? x->headers : p->headers) != CURLE_OK ||
	    curl_easy_setopt(c, CURLOPT_PIPEWAIT, (long)p->two) != CURLE_OK ||
	    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, connect_ms) != CURLE_OK ||
	    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, limit_ms) != CURLE_OK ||
	    curl_multi_add_handle(p->multi, c) != CURLM_OK)
		return false;
	x->busy = true;
	p->busy++;
	return true;
}

static void leave(struct http_xfer *x)
{
	(void)curl_multi_remove_handle(x->peer->multi, x->easy);
	x->busy = false;
	x->req = NULL;
	x->peer->busy--;
}

/* ---- opening ---- */

static void open_failed(struct http_peer *p, int code, const char *why)
{
	struct err e = {0};

	(void)err_set(&e, code, "%s", why);
	net_open_failed(p->peer.src, &e);
}

/* False: open_failed has been told. */
static bool pin(struct http_peer *p, const struct http_head *h)
{
	char line[HTTP_TAG_MAX + 32];

	p->pin = *h;
	if (http_etag_is_strong(h->etag)) {
		snprintf(line, sizeof(line), "If-Match: %s", h->etag);
	} else if (h->modified[0]) {
		p->pin.etag[0] = '\0';
		snprintf(line, sizeof(line), "If-Unmodified-Since: %s", h->modified);
	} else if (p->target->any_version) {
		p->pin.etag[0] = '\0';
		return true;
	} else {
		open_failed(p, -ENOTSUP, "the server gives neither a strong ETag nor a time of the "
			    "last change, so a changed object would not be noticed; #http-pin=no "
			    "takes it all the same");
		return false;
	}
	snprintf(p->known_by, sizeof(p->known_by), "%s", line);
	if (add_line(&p->headers, line))
		return true;
	open_failed(p, -ENOMEM, "out of memory");
	return false;
}

static void opened(struct http_xfer *x)
{
	struct http_peer *p = x->peer;
	const uint32_t connections = p->target->connections ? p->target->connections
							    : HTTP_CONNECTIONS;
	const char *url = NULL;
	long version = 0, moves = 0;

	if (x->head.total == 0 || x->head.total > INT64_MAX) {
		open_failed(p, -ENOTSUP, x->head.total ? "the object cannot be as large as the "
			    "server says" : "the server does not say how large the object is");
		return;
	}
	(void)curl_easy_getinfo(x->easy, CURLINFO_HTTP_VERSION, &version);
	(void)curl_easy_getinfo(x->easy, CURLINFO_REDIRECT_COUNT, &moves);
	(void)curl_easy_getinfo(x->easy, CURLINFO_EFFECTIVE_URL, &url);
	if (moves > 0 && url)
		p->moved = strdup(url);
	p->two = version == CURL_HTTP_VERSION_2_0;
	p->limit = p->two ? p->depth : (unsigned)min_u64(connections, p->depth);
	(void)curl_multi_setopt(p->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)connections);
	(void)curl_multi_setopt(p->multi, CURLMOPT_MAXCONNECTS, (long)connections);
	p->size = x->head.total;
	if (pin(p, &x->head))
		net_opened(p->peer.src, p->size, HTTP_REQ_BYTES, 1, p->depth, p->known_by);
}

static void ask_first(struct http_peer *p)
{
	if (!ask(&p->xfers[0], 0, 1))
		open_failed(p, -EIO, "libcurl does not take the URL");
}

static void open_again(struct timer *tm, uint64_t now_ns)
{
	(void)now_ns;
	ask_first(CONTAINER_OF(tm, struct http_peer, again));
}

/* Of the try that comes behind that many. */
static uint64_t pause_ns(unsigned tries)
{
	return net_backoff_ns(tries, tries ? HTTP_PAUSE_NS / 8 : 0, HTTP_PAUSE_MAX_NS);
}

/* It has left. A server that is not there is the wrong one; one that has no time is waited for. */
static void finish_first(struct http_xfer *x, enum verdict v, uint64_t until_ns)
{
	struct http_peer *p = x->peer;
	struct timers *ts = net_loop_timers(loop_of(p));

	if (v == AGAIN && ++p->tries < HTTP_TRIES)
		timer_arm(ts, &p->again, monotonic_ns() + pause_ns(p->tries - 1));
	else if (v == LATER && x->why.code == -EAGAIN)
		timer_arm(ts, &p->again, until_ns);
	else if (v == GOOD)
		opened(x);
	else
		open_failed(p, x->why.code, x->why.text);
}

/* ---- the end of a request ---- */

static void finish(struct http_xfer *x, CURLcode result)
{
	struct http_peer *p = x->peer;
	struct net_src *s = p->peer.src;
	struct net_req *req = x->req;
	enum verdict v = judge(x, result);
	uint64_t until = v == LATER ? later(x) : 0;

	leave(x);
	if (!req) {
		finish_first(x, v, until);
		return;
	}
	/* Where it had moved to may be good for a while only; others may have found that out. */
	if (v == REFUSED && x->moved && (x->why.code == -EACCES || x->why.code == -ENOENT)) {
		free(p->moved);
		p->moved = NULL;
		v = AGAIN;
	}
	/* Credentials are good for a while, too, and whoever renews them writes them anew. */
	if (v == REFUSED && p->s3 && x->why.code == -EACCES &&
	    (x->keys != s3_keys(p->s3) || s3_renew(p->s3)))
		v = AGAIN;
	if (v == MORE) {
		req->got += (uint32_t)x->got;
		v = x->got < HTTP_PART_MIN ? AGAIN : MORE;
	}
	if (v == AGAIN && req->tries + 1 >= HTTP_TRIES)
		v = REFUSED;
	switch (v) {
	case GOOD:
		p->fails = 0;
		net_req_done(s, req);
		break;
	case MORE:
		p->fails = 0;
		net_req_wait(s, req);
		break;
	case REFUSED:
		net_req_fail(s, req, x->why.code, x->why.text);
		break;
	case LATER:
		net_src_hold(s, until);
		net_req_wait(s, req);
		break;
	case AGAIN:
		net_req_again(s, req, pause_ns(req->tries));
		break;
	}
}

static void look(struct http_peer *p)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(p->multi, &left))) {
		CURLcode result = m->data.result;
		void *x = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &x);
		/* m is gone after this. */
		finish(x, result);
	}
	/* Of which one it is, libcurl does not tell; nor does it go on where that is an error. */
	for (unsigned i = 0; p->blind && i < p->depth; i++)
		if (p->xfers[i].busy)
			finish(&p->xfers[i], CURLE_ABORTED_BY_CALLBACK);
	p->blind = false;
}

/* ---- libcurl's side of the loop ---- */

static void fd_ready(struct net_fd *f, uint32_t events)
{
	struct http_peer *p = f->ctx;
	int what = 0, running;

	if (events & EPOLLIN)
		what |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (events & (EPOLLERR | EPOLLHUP))
		what |= CURL_CSELECT_ERR;
	(void)curl_multi_socket_action(p->multi, f->fd, what, &running);
	look(p);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *assigned)
{
	struct http_peer *p = ctx;
	struct net_fd *f = assigned;
	uint32_t events = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		net_fd_del(loop_of(p), f);
		(void)curl_multi_assign(p->multi, fd, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	if (f) {
		net_fd_events(loop_of(p), f, events);
		return 0;
	}
	f = net_fd_add(loop_of(p), fd, events, fd_ready, p);
	(void)curl_multi_assign(p->multi, fd, f);
	p->blind = p->blind || !f;
	return 0;
}

static int on_timer(CURLM *multi, long ms, void *ctx)
{
	struct http_peer *p = ctx;
	struct timers *ts = net_loop_timers(loop_of(p));

	(void)multi;
	if (ms < 0)
		timer_cancel(ts, &p->timer);
	else
		timer_arm(ts, &p->timer, monotonic_ns() + (uint64_t)ms * NS_PER_MS);
	return 0;
}

static void timer_fire(struct timer *tm, uint64_t now_ns)
{
	struct http_peer *p = CONTAINER_OF(tm, struct http_peer, timer);
	int running;

	(void)now_ns;
	(void)curl_multi_socket_action(p->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	look(p);
}

/* ---- the peer ---- */

static bool http_room(struct net_peer *peer, enum turn turn)
{
	const struct http_peer *p = peer_of(peer);

	return p->busy < (turn < TURN_AHEAD ? p->limit : (p->limit + 1) / 2);
}

static void http_submit(struct net_peer *peer, struct net_req *req)
{
	struct http_peer *p = peer_of(peer);
	struct http_xfer *x = free_xfer(p);

	x->req = req;
	req->peers = x;
	if (ask(x, req->offset + req->got, req->len - req->got))
		return;
	x->req = NULL;
	net_req_fail(peer->src, req, -ENOMEM, "libcurl does not take the request");
}

static void http_cancel(struct net_peer *peer, struct net_req *req)
{
	(void)peer;
	leave(req->peers);
}

static void http_close(struct net_peer *peer)
{
	struct http_peer *p = peer_of(peer);
	struct timers *ts = net_loop_timers(loop_of(p));

	for (unsigned i = 0; i < p->depth; i++) {
		if (p->xfers[i].busy)
			leave(&p->xfers[i]);
		curl_easy_cleanup(p->xfers[i].easy);
		curl_slist_free_all(p->xfers[i].headers);
	}
	(void)curl_multi_cleanup(p->multi);
	timer_cancel(ts, &p->timer);
	timer_cancel(ts, &p->again);
	curl_slist_free_all(p->headers);
	curl_global_cleanup();
	s3_close(p->s3);
	free(p->moved);
	free(p->xfers);
	free(p);
}

static int http_open(struct net_src *s, const struct net_target *t, struct net_peer **ret,
		     struct err *e)
{
	struct http_peer *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return err_sys(e, -ENOMEM, "HTTP");
	rc = t->protocol == NET_S3 ? s3_open(t, &p->s3, e) : 0;
	if (rc < 0) {
		free(p);
		return rc;
	}
	p->peer = (struct net_peer){s};
	p->target = t;
	p->timer.fire = timer_fire;
	p->again.fire = open_again;
	p->depth = t->depth ? t->depth : HTTP_DEPTH;
	p->xfers = calloc(p->depth, sizeof(*p->xfers));
	/* Safe beside other threads, and counted: a VMM may use it, too. */
	if (!p->xfers || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		s3_close(p->s3);
		free(p->xfers);
		free(p);
		return err_sys(e, -ENOMEM, "HTTP");
	}
	for (unsigned i = 0; i < p->depth; i++)
		p->xfers[i].peer = p;
	p->multi = curl_multi_init();
	*ret = &p->peer;
	if (!p->multi || !add_line(&p->headers, HTTP_ENCODING) ||
	    curl_multi_setopt(p->multi, CURLMOPT_SOCKETFUNCTION, on_socket) ||
	    curl_multi_setopt(p->multi, CURLMOPT_SOCKETDATA, p) ||
	    curl_multi_setopt(p->multi, CURLMOPT_TIMERFUNCTION, on_timer) ||
	    curl_multi_setopt(p->multi, CURLMOPT_TIMERDATA, p))
		return err_sys(e, -ENOMEM, "HTTP");
	ask_first(p);
	return 0;
}

const struct net_peer_ops net_http_ops = {
	.open = http_open,
	.room = http_room,
	.submit = http_submit,
	.cancel = http_cancel,
	.close = http_close,
};
