/* SPDX-License-Identifier: Apache-2.0 */
#include "net_servers_fixture.h"

void site_open(struct site *w, enum apf_faults faults)
{
	memset(w, 0, sizeof(*w));
	svc_open(&w->s);
	w->f = fix_open(faults, APF_ABI_INT, NET_PAGES);
	w->image = net_image(w->f);
	w->addr = SITE_ADDR;
	svc_write(&w->s, "image", w->image, NET_BYTES);
	snprintf(w->file, sizeof(w->file), "file=%s", svc_path(&w->s, "image", w->path));
	svc_path(&w->s, "sock", w->socket);
}

void site_close(struct site *w)
{
	svc_close(&w->s);
	fix_close(w->f);
	free(w->image);
}

void site_pack(struct site *w)
{
	struct zst_made z;

	zst_begin(&z, true);
	for (size_t at = 0; at < NET_BYTES; at += 65536)
		zst_frame(&z, w->image + at, min_u64(65536, NET_BYTES - at));
	zst_finish(&z);
	svc_write(&w->s, "image", z.at, z.len);
	zst_free(&z);
}

/* ---- nginx ---- */

void nginx(struct site *w, const char *listen, const char *more)
{
	char text[2048], conf[SVC_PATH_MAX];
	const char *argv[] = {"nginx", "-p", w->s.dir, "-e", "log", "-c", conf, NULL};
	const char *d = w->s.dir;

	if (w->s.port == 0)
		(void)svc_free_port(&w->s);
	snprintf(text, sizeof(text),
		 "daemon off; master_process off; pid %s/pid;\n"
		 "events { worker_connections 256; }\n"
		 "http { access_log %s/access;\n"
		 "client_body_temp_path %s/t1; proxy_temp_path %s/t2;\n"
		 "fastcgi_temp_path %s/t3; uwsgi_temp_path %s/t4; scgi_temp_path %s/t5;\n"
		 "keepalive_requests 100;\n"
		 "server { listen %s:%d %s; server_name localhost; root %s; %s } }\n",
		 d, d, d, d, d, d, d, w->addr, w->s.port, listen, d, more);
	svc_write(&w->s, "nginx.conf", text, strlen(text));
	svc_path(&w->s, "nginx.conf", conf);
	svc_start(&w->s, argv);
	svc_wait_addr(&w->s, w->addr);
}

static void nginx_plain(struct site *w)
{
	nginx(w, "", "");
}

void nginx_tls(struct site *w, const char *protocol)
{
	char more[2 * SVC_PATH_MAX + 128];

	snprintf(more, sizeof(more), "ssl_certificate %s/server-cert.pem; "
		 "ssl_certificate_key %s/server-key.pem;", w->s.dir, w->s.dir);
	nginx(w, protocol, more);
}

static void nginx_https(struct site *w)
{
	nginx_tls(w, "ssl");
}

static void nginx_http2(struct site *w)
{
	nginx_tls(w, "ssl http2");
}

/* ---- nbdkit ---- */

void nbdkit(struct site *w, const char *filter, const char *key)
{
	const char *argv[16] = {"nbdkit", "-f", "-r", "-U", w->socket};
	unsigned i = 5;

	unlink(w->socket);
	if (filter)
		argv[i++] = filter;
	argv[i++] = "file";
	argv[i++] = w->file;
	if (key)
		argv[i++] = key;
	svc_start(&w->s, argv);
	svc_wait_socket(&w->s, w->socket);
}

static void nbdkit_socket(struct site *w)
{
	nbdkit(w, NULL, NULL);
}

void nbdkit_port(struct site *w, const char *tls)
{
	char port[16];
	const char *argv[16] = {"nbdkit", "-f", "-r", "-p", port, "-i", w->addr};
	unsigned i = 7;

	snprintf(port, sizeof(port), "%d", w->s.port ? w->s.port : svc_free_port(&w->s));
	if (tls) {
		argv[i++] = "--tls=require";
		argv[i++] = tls;
	}
	argv[i++] = "file";
	argv[i++] = w->file;
	svc_start(&w->s, argv);
	svc_wait_addr(&w->s, w->addr);
}

void nbdkit_tcp(struct site *w)
{
	nbdkit_port(w, NULL);
}

void nbdkit_tls(struct site *w)
{
	char option[SVC_PATH_MAX + 32];

	snprintf(option, sizeof(option), "--tls-certificates=%s", w->s.dir);
	nbdkit_port(w, option);
}

/* ---- the table ---- */

/* ---- the table ---- */

const struct server servers[] = {
#ifdef HAVE_HTTP
	{"nginx", "nginx", "http", nginx_plain, .is_plain = true, .is_http = true,
	 .by_tcp = true},
	{"nginx with TLS", "nginx", "https", nginx_https, .is_http = true, .is_tls = true,
	 .by_tcp = true, .of_another = "SSL"},
	{"nginx with HTTP/2", "nginx", "https", nginx_http2, .is_http = true, .is_tls = true,
	 .by_tcp = true, .of_another = "SSL"},
#endif
#ifdef HAVE_NBD
	{"nbdkit by a socket", "nbdkit", "nbd+unix", nbdkit_socket, .is_plain = true},
	{"nbdkit by TCP", "nbdkit", "nbd", nbdkit_tcp, .by_tcp = true},
	{"nbdkit with TLS", "nbdkit", "nbds", nbdkit_tls, .is_tls = true, .by_tcp = true,
	 .of_another = "certificate"},
#endif
};
const unsigned servers_count = ARRAY_LEN(servers);

bool site_start(struct site *w, const struct server *server, enum apf_faults faults)
{
	if (!svc_have(server->program) || (server->is_tls && !svc_have("openssl")))
		return false;
	print_message("%s\n", server->name);
	site_open(w, faults);
	w->server = server;
	if (server->is_tls)
		svc_certificates(&w->s, SITE_HOST, 2);
	server->start(w);
	return true;
}

const char *site_uri_at(struct site *w, const char *wrap, const char *host, const char *keys,
			const struct svc *certificates)
{
	const struct server *server = w->server;
	char tls[SVC_PATH_MAX + 32] = "", at[SVC_PATH_MAX + 32];

	if (server->is_tls && certificates)
		snprintf(tls, sizeof(tls), server->is_http ? "http-ca=%s/ca-cert.pem"
							   : "tls-certificates=%s",
			 certificates->dir);
	if (server->by_tcp)
		snprintf(at, sizeof(at), "%s:%d/%s", host, w->s.port,
			 server->is_http ? "image" : "");
	else
		snprintf(at, sizeof(at), "/");
	snprintf(w->uri, sizeof(w->uri), "%s%s://%s%s%s%s%s%s%s", wrap, server->scheme, at,
		 server->is_http ? "#" : "?", server->by_tcp ? "" : "socket=",
		 server->by_tcp ? "" : w->socket, tls,
		 *keys && (*tls || !server->by_tcp) ? "&" : "", keys);
	/* Neither a '?' nor a '#' with nothing behind it. */
	if (server->by_tcp && !*tls && !*keys)
		w->uri[strlen(w->uri) - 1] = '\0';
	return w->uri;
}

const char *site_uri(struct site *w, const char *wrap, const char *keys)
{
	return site_uri_at(w, wrap, SITE_HOST, keys, &w->s);
}
