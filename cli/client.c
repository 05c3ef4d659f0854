#include "cli/client.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/base/fio.h"

#define TIMEOUT_MS 120000L // a reload that waits for its end
#define CONNECT_MS 5000L
#define TOKEN_MAX 4096

struct client {
    CURL *curl;
    char *base; // without a slash at the end
    struct curl_slist *headers;
    struct client_tls tls;
};

bool client_is_url(const char *text)
{
    return strncasecmp(text, "http://", 7) == 0 || strncasecmp(text, "https://", 8) == 0;
}

bool client_tls_check(const struct client_tls *tls, struct err *err)
{
    const struct {
        const char *option, *path;
    } files[] = {{"ca", tls->ca}, {"cert", tls->cert}, {"key", tls->key}};
    if (tls->key && !tls->cert)
        return err_set(err, ERR_ARG, "--key is given without --cert");
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
        if (files[i].path && access(files[i].path, R_OK) != 0)
            return err_errno(err, "--%s %s", files[i].option, files[i].path);
    return true;
}

bool client_put_api_key(struct buf *out, struct err *err)
{
    const char *key = getenv("DUET_API_KEY");
    if (!key || !key[0])
        return true;
    for (const char *p = key; *p; p++)
        if (*p <= ' ' || *p > '~')
            return err_set(err, ERR_ARG, "DUET_API_KEY: want printable ASCII without blanks");
    buf_printf(out, "X-Api-Key: %s", key);
    return !out->failed || err_set(err, ERR_NOMEM, "out of memory");
}

static bool add_header(struct client *c, const char *line)
{
    struct curl_slist *more = curl_slist_append(c->headers, line);
    if (more)
        c->headers = more;
    return more != NULL;
}

bool client_setup(struct err *err)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK || err_set(err, ERR_IO, "libcurl cannot be set up");
}

struct client *client_new(const char *url, const struct client_tls *tls, struct err *err)
{
    if (!client_is_url(url)) {
        err_set(err, ERR_ARG, "\"%s\": want http://HOST:PORT", url);
        return NULL;
    }
    struct buf key = {0};
    if (!client_tls_check(tls, err) || !client_put_api_key(&key, err))
        return NULL;
    struct client *c = mem_array(1, sizeof(*c), err);
    size_t n = strlen(url);
    while (n > 0 && url[n - 1] == '/')
        n--;
    if (!c || !(c->base = mem_dup(url, n, err)) || !(c->curl = curl_easy_init()) ||
        !(c->headers = curl_slist_append(NULL, "Content-Type: application/json")) ||
        (key.data && !add_header(c, key.data))) {
        err_set(err, ERR_NOMEM, "out of memory");
        client_free(c);
        c = NULL;
    }
    buf_fini(&key);
    if (c)
        c->tls = *tls;
    return c;
}

void client_free(struct client *c)
{
    if (!c)
        return;
    curl_slist_free_all(c->headers);
    curl_easy_cleanup(c->curl);
    free(c->base);
    free(c);
}

bool client_read_token(struct client *c, const char *path, struct err *err)
{
    static const char head[] = "Authorization: Bearer ";
    size_t n;
    char *text = fio_read_all(path, TOKEN_MAX, &n, err);
    if (!text)
        return false;
    struct buf line = {0};
    buf_puts(&line, head);
    buf_put(&line, text, strcspn(text, "\r\n"));
    free(text);
    bool ok = !line.failed && add_header(c, line.data);
    buf_fini(&line);
    return ok || err_set(err, ERR_NOMEM, "out of memory");
}

// -------------------------------------------------------------------------------------------------------- one call

void client_reply_fini(struct client_reply *r)
{
    buf_fini(&r->body);
    *r = (struct client_reply){0};
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
    struct client_reply *r = ctx;
    buf_put(&r->body, data, size * n);
    return r->body.failed ? 0 : size * n;
}

static size_t on_header(char *line, size_t size, size_t n, void *ctx)
{
    static const char name[] = "server-timing:";
    struct client_reply *r = ctx;
    size_t len = size * n, at = sizeof(name) - 1;
    if (len <= at || strncasecmp(line, name, at) != 0)
        return len;
    while (at < len && line[at] == ' ')
        at++;
    size_t out = 0;
    while (at < len && line[at] >= ' ' && out + 1 < sizeof(r->server_timing))
        r->server_timing[out++] = line[at++];
    r->server_timing[out] = '\0';
    return len;
}

static void set_tls(struct client *c)
{
    curl_easy_setopt(c->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (c->tls.ca) {
        curl_easy_setopt(c->curl, CURLOPT_CAINFO, c->tls.ca);
        curl_easy_setopt(c->curl, CURLOPT_CAPATH, NULL); // and no others
    }
    if (c->tls.cert) {
        curl_easy_setopt(c->curl, CURLOPT_SSLCERT, c->tls.cert);
        curl_easy_setopt(c->curl, CURLOPT_SSLKEY, c->tls.key ? c->tls.key : c->tls.cert);
    }
}

static void set_request(struct client *c, const char *url, const char *method, const char *body, struct client_reply *r)
{
    curl_easy_reset(c->curl); // keeps connections
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(c->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c->curl, CURLOPT_HEADERDATA, r);
    set_tls(c);
    if (strcmp(method, "GET") == 0)
        return;
    curl_easy_setopt(c->curl, CURLOPT_POST, 1L);
    curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body ? body : "");
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE, (long)(body ? strlen(body) : 0));
}

bool client_call(struct client *c, const char *method, const char *path, const char *body, struct client_reply *r,
                 struct err *err)
{
    struct buf url = {0};
    char why[CURL_ERROR_SIZE] = "";
    long status = 0;
    buf_puts(&url, c->base);
    buf_puts(&url, path);
    if (url.failed) {
        buf_fini(&url);
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    buf_reset(&r->body);
    r->server_timing[0] = '\0';
    set_request(c, url.data, method, body, r);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, why);
    CURLcode rc = curl_easy_perform(c->curl);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, NULL); // ends with this call
    r->status = (unsigned)status;
    if (rc != CURLE_OK)
        err_set(err, ERR_IO, "%s: %s", url.data, why[0] ? why : curl_easy_strerror(rc));
    buf_fini(&url);
    return rc == CURLE_OK;
}

/* What the problem says about itself; its code is what scripts look for. */
static void problem(const struct client_reply *r, const json_t *v, const char *path, struct err *err)
{
    const char *code = json_string_value(json_object_get(v, "code")),
               *detail = json_string_value(json_object_get(v, "detail"));
    if (code || detail)
        err_set(err, r->status == 404 ? ERR_NOT_FOUND : ERR_STATE, "%s: %u %s: %s", path, r->status, code ? code : "",
                detail ? detail : "");
    else
        err_set(err, ERR_STATE, "%s: status %u, %.200s", path, r->status, r->body.data ? r->body.data : "empty answer");
}

json_t *client_json(struct client *c, const char *method, const char *path, const json_t *body, struct client_reply *r,
                    struct err *err)
{
    struct client_reply mine = {0}, *to = r ? r : &mine;
    char *text = body ? json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_t *v = NULL;
    if (body && !text)
        err_set(err, ERR_NOMEM, "the request cannot be written (out of memory, or not UTF-8)");
    else if (client_call(c, method, path, text, to, err)) {
        v = json_parse(to->body.data ? to->body.data : "", to->body.len, to->status / 100 == 2 ? err : NULL);
        if (to->status / 100 != 2) {
            problem(to, v, path, err);
            json_decref(v);
            v = NULL;
        }
    }
    free(text);
    client_reply_fini(&mine);
    return v;
}

void client_escape(struct buf *out, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool plain =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr("-._~", *p);
        buf_printf(out, plain ? "%c" : "%%%02X", *p);
    }
}
