/* One thread does it all: it hands out ranges, takes in what curl has received, hashes what is
 * complete from the beginning, and asks now and then whether to go on. */
#include "hub/transfer.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"
#include "hub/api.h"

enum {
    RANGE_MOST = 32 << 20,
    RANGE_LEAST = 4 << 20,
    HASH_AT_ONCE = 16,         /* blocks, before looking at the network again */
    PROGRESS_BYTES = 64 << 10, /* that count as an answer: after them, tries begin anew */
    DISCARD_MOST = 1 << 20     /* of a page that says what is wrong */
};
static const double keep_seconds = 2, report_seconds = 0.1, lock_seconds = 0.25;

typedef enum verdict {
    GOING,      /* nothing said yet, or all is well */
    DISCARDING, /* an answer that is no file: its body does not matter */
    NO_RANGES,  /* the whole file comes though a range was asked for */
    FATAL       /* *run->error says why */
} verdict;

typedef struct run run;

/* A request, and what it asks for. Idle: no blob. */
typedef struct job {
    run *owner;
    CURL *easy;
    hub_blob *blob;
    char *url;
    hub_reply reply;
    uint64_t begin, at, end; /* of the file; bytes before `at` have come */
    uint64_t tried_at;       /* where `at` was when tries began */
    uint64_t discarded;
    int redirects, tries;
    double resume; /* when to ask again; 0: it is under way */
    bool started;  /* the answer's head was looked at */
    verdict verdict;
} job;

struct run {
    const hub_transfer *t;
    CURLM *multi;
    job jobs[HUB_CONNECTIONS_MOST];
    uint8_t *done;         /* [n] blobs that are in their place */
    uint8_t *opened;       /* [n] */
    uint8_t *buffer;       /* [HUB_BLOCK] */
    size_t first;          /* blobs before this are done */
    uint64_t placed;       /* bytes of those */
    double kept, reported; /* when last */
    marco_status status;
    marco_error *error;
};

/* ---- taking in ------------------------------------------------------------------------------ */

static verdict give_up(run *r, marco_status status)
{
    r->status = status;
    return FATAL;
}

/* Whether the answer is the part of the file that was asked for. */
static verdict judge(job *j)
{
    run *r = j->owner;
    long code = 0;
    curl_off_t length = -1;
    const hub_file *file = j->blob->file;
    curl_easy_getinfo(j->easy, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_getinfo(j->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (code != 200 && code != 206)
        return DISCARDING;
    bool ranged = j->at > 0 || j->end < file->size;
    uint64_t total = code == 206 ? j->reply.total : length >= 0 ? (uint64_t)length : file->size;
    if (total != file->size)
        return give_up(r, base_fail(r->error, MARCO_ERROR_FORMAT,
                                    "%s: the hub sends %llu bytes of a file that it lists with "
                                    "%llu; not downloaded",
                                    file->path, (unsigned long long)total,
                                    (unsigned long long)file->size));
    if (code == 206 && j->reply.begin != j->at)
        return give_up(r, base_fail(r->error, MARCO_ERROR_NETWORK,
                                    "%s: the hub sends another part of the file than was asked for",
                                    file->path));
    return code == 200 && ranged ? NO_RANGES : GOING;
}

static size_t on_bytes(char *data, size_t one, size_t n, void *user)
{
    job *j = user;
    size_t size = one * n;
    if (!j->started) {
        j->started = true;
        j->verdict = judge(j);
    }
    if (j->verdict == DISCARDING) {
        j->discarded += size;
        return j->discarded > DISCARD_MOST ? 0 : size;
    }
    if (j->verdict == GOING && size > j->end - j->at)
        j->verdict = give_up(j->owner, base_fail(j->owner->error, MARCO_ERROR_FORMAT,
                                                 "%s: the hub sends more bytes than it lists",
                                                 j->blob->file->path));
    if (j->verdict != GOING)
        return 0;
    marco_status status = hub_blob_write(j->blob, j->at, data, size, j->owner->error);
    if (status) {
        j->verdict = give_up(j->owner, status);
        return 0;
    }
    j->at += size;
    return size;
}

/* ---- asking --------------------------------------------------------------------------------- */

/* Sends the request for [at, end) of the file. */
static marco_status send_range(run *r, job *j)
{
    char range[48];
    marco_status status = hub_net_prepare(r->t->net, j->easy, j->url, &j->reply, r->error);
    if (status)
        return status;
    curl_easy_setopt(j->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(j->easy, CURLOPT_WRITEDATA, j);
    curl_easy_setopt(j->easy, CURLOPT_PRIVATE, j);
    if (j->at > 0 || j->end < j->blob->file->size) {
        snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)j->at,
                 (unsigned long long)(j->end - 1));
        if (curl_easy_setopt(j->easy, CURLOPT_RANGE, range) != CURLE_OK)
            return base_fail_memory(r->error, sizeof range, "a request");
    }
    j->started = false;
    j->verdict = GOING;
    j->discarded = 0;
    j->resume = 0;
    if (curl_multi_add_handle(r->multi, j->easy) != CURLM_OK)
        return base_fail_memory(r->error, sizeof *j, "a request");
    return MARCO_OK;
}

/* From the hub's own address again: where it led the last time may be stale. */
static marco_status send_first(run *r, job *j)
{
    base_free(j->url);
    j->url = hub_api_file(r->t->net, r->t->model, r->t->commit, j->blob->file->path);
    j->redirects = 0;
    return j->url ? send_range(r, j) : base_fail_memory(r->error, 256, j->blob->file->path);
}

static void release(job *j)
{
    if (!j->blob)
        return;
    hub_blob_unclaim(j->blob, j->at, j->end);
    j->blob->users--;
    j->blob = NULL;
}

/* Takes a blob up: opened, or in its place already. *busy: others are at it. */
static marco_status take_up(run *r, size_t i, bool *busy)
{
    hub_blob *blob = &r->t->blobs[i];
    marco_status status = hub_blob_open(blob, busy, r->error);
    if (status || *busy)
        return status;
    r->opened[i] = 1;
    if (blob->fd >= 0)
        return MARCO_OK;
    status = r->t->placed(r->t->user, blob, r->error); /* whoever had the lock has made it */
    hub_blob_close(blob);
    r->done[i] = 1;
    r->placed += blob->file->size;
    return status;
}

/* Work for a job: the next range of a file that is open, or of one that can be opened now. */
static marco_status find_work(run *r, job *j, double now)
{
    for (size_t i = r->first; i < r->t->n; i++) {
        hub_blob *blob = &r->t->blobs[i];
        if (r->done[i] || blob->spoilt || now < blob->resume)
            continue;
        if (!r->opened[i]) {
            bool busy = false;
            marco_status status = take_up(r, i, &busy);
            if (status)
                return status;
            if (busy)
                blob->resume = now + lock_seconds;
            if (!r->opened[i] || r->done[i])
                continue;
        }
        uint64_t most = blob->file->size / (uint64_t)r->t->connections;
        most = most < RANGE_LEAST ? RANGE_LEAST : most > RANGE_MOST ? RANGE_MOST : most;
        if (!hub_blob_claim(blob, most, &j->begin, &j->end))
            continue;
        j->blob = blob;
        blob->users++;
        j->at = j->tried_at = j->begin;
        j->tries = 0;
        return send_first(r, j);
    }
    return MARCO_OK;
}

/* ---- answers -------------------------------------------------------------------------------- */

/* The range did not come whole: again, later, or an error. */
static marco_status again(run *r, job *j, CURLcode result)
{
    if (j->at - j->tried_at >= PROGRESS_BYTES) {
        j->tries = 0;
        j->tried_at = j->at;
    }
    hub_blob *blob = j->blob;
    int *tries = blob->whole_only ? &blob->tries : &j->tries;
    if (++*tries >= HUB_TRIES)
        return hub_net_fail(r->t->net, j->easy, result, &j->reply, blob->file->path, r->error);
    double resume = base_now() + hub_delay(r->t->net, j->easy, *tries);
    if (blob->whole_only) {
        blob->spoilt = true;
        blob->resume = resume;
        release(j);
    } else {
        j->resume = resume;
    }
    return MARCO_OK;
}

static marco_status finish(run *r, job *j, CURLcode result)
{
    long code = 0;
    marco_status status;
    curl_easy_getinfo(j->easy, CURLINFO_RESPONSE_CODE, &code);
    if (!j->started && result == CURLE_OK) {
        j->started = true;
        j->verdict = judge(j); /* an answer without a body */
    }
    if (j->verdict == FATAL)
        return r->status;
    if (j->verdict == NO_RANGES) {
        j->blob->spoilt = true;
        release(j);
        return MARCO_OK;
    }
    if (j->verdict == DISCARDING && result == CURLE_WRITE_ERROR)
        result = CURLE_OK; /* enough of that page */
    if (result == CURLE_OK && hub_is_redirect(code)) {
        status = hub_net_redirect(r->t->net, j->easy, j->blob->file->path, &j->redirects, &j->url,
                                  r->error);
        return status ? status : send_range(r, j);
    }
    if (result == CURLE_OK && code == 416)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: the hub's file is shorter than the %llu bytes that it lists",
                         j->blob->file->path, (unsigned long long)j->blob->file->size);
    bool good = code == 200 || code == 206;
    if (good && j->at == j->end) {
        release(j); /* whatever went wrong after the last byte: the hash tells of wrong ones */
        return MARCO_OK;
    }
    /* An address that the hub led to may forget us; a body that ends early is a connection cut. */
    bool stale = code == 403 && j->redirects > 0;
    if (good && result == CURLE_OK)
        result = CURLE_PARTIAL_FILE;
    if (hub_is_passing(result, code) || stale)
        return again(r, j, result);
    return hub_net_fail(r->t->net, j->easy, result, &j->reply, j->blob->file->path, r->error);
}

static marco_status take_answers(run *r)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(r->multi, &left))) {
        job *j = NULL;
        CURLcode result = message->data.result;
        CURL *easy = message->easy_handle;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, &j);
        curl_multi_remove_handle(r->multi, easy);
        marco_status status = finish(r, j, result);
        if (status)
            return status;
    }
    return MARCO_OK;
}

/* ---- the loop ------------------------------------------------------------------------------- */

/* Gives work to those that have none, and sends again what is due. */
static marco_status send_all(run *r, double now)
{
    marco_status status = MARCO_OK;
    for (int i = 0; i < r->t->connections && !status; i++) {
        job *j = &r->jobs[i];
        if (!j->blob)
            status = find_work(r, j, now);
        else if (j->resume > 0 && now >= j->resume)
            status = send_first(r, j);
    }
    return status;
}

/* Blobs that are complete and hashed get their names; *worked: there was something to hash. */
static marco_status advance(run *r, bool *worked)
{
    int budget = HASH_AT_ONCE;
    *worked = false;
    for (size_t i = r->first; i < r->t->n; i++) {
        hub_blob *blob = &r->t->blobs[i];
        bool more = r->opened[i] && !r->done[i];
        if (!more)
            continue;
        if (blob->spoilt && blob->users == 0) {
            marco_status status = hub_blob_restart(blob, r->error);
            if (status)
                return status;
            blob->spoilt = false;
        }
        while (more && budget > 0) {
            marco_status status = hub_blob_hash(blob, r->buffer, &more, r->error);
            if (status)
                return status;
            budget -= more;
            *worked = *worked || more;
        }
        if (!hub_blob_is_complete(blob))
            continue;
        marco_status status = hub_blob_commit(blob, r->error);
        if (!status)
            status = r->t->placed(r->t->user, blob, r->error);
        if (status)
            return status;
        hub_blob_close(blob);
        r->done[i] = 1;
        r->placed += blob->file->size;
    }
    while (r->first < r->t->n && r->done[r->first])
        r->first++;
    return MARCO_OK;
}

static marco_status keep_and_report(run *r, double now)
{
    marco_status status = MARCO_OK;
    uint64_t done = r->t->elsewhere + r->placed, hashed = done;
    bool idle = true;
    for (size_t i = r->first; i < r->t->n; i++) {
        if (!r->opened[i] || r->done[i])
            continue;
        done += r->t->blobs[i].present;
        hashed += r->t->blobs[i].hashed;
        idle = false;
    }
    for (int i = 0; i < r->t->connections; i++)
        if (r->jobs[i].blob) /* of blocks that are there in part */
            done += r->jobs[i].at < r->jobs[i].end ? r->jobs[i].at % HUB_BLOCK : 0;
    if (now - r->kept >= keep_seconds * r->t->net->pace) {
        for (size_t i = r->first; i < r->t->n && !status; i++)
            if (r->opened[i] && !r->done[i])
                status = hub_blob_keep(&r->t->blobs[i], r->error);
        r->kept = now;
    }
    const marco_progress *progress = &r->t->net->progress;
    if (!status && progress->fn && now - r->reported >= report_seconds) {
        r->reported = now;
        bool all = done == r->t->total && hashed < done;
        idle = idle && r->first < r->t->n;
        const char *what = idle  ? "waiting for another program's download"
                           : all ? "checking"
                                 : "downloading";
        if (progress->fn(progress->user, what,
                         idle  ? 0
                         : all ? hashed
                               : done,
                         idle ? 0 : r->t->total) != 0)
            status = base_fail(r->error, MARCO_ERROR_CANCELLED, "cancelled");
    }
    return status;
}

static marco_status step(run *r)
{
    int running = 0;
    bool worked = false;
    double now = base_now();
    marco_status status = send_all(r, now);
    if (!status && curl_multi_perform(r->multi, &running) != CURLM_OK)
        status = base_fail_memory(r->error, 0, "the network's buffers");
    if (!status)
        status = take_answers(r);
    if (!status)
        status = advance(r, &worked);
    if (!status)
        status = keep_and_report(r, now);
    if (!status && !worked && r->first < r->t->n)
        curl_multi_poll(r->multi, NULL, 0, 50, NULL);
    return status;
}

static marco_status open_run(run *r)
{
    r->multi = curl_multi_init();
    r->done = base_calloc(r->t->n, 1);
    r->opened = base_calloc(r->t->n, 1);
    r->buffer = base_alloc(HUB_BLOCK);
    bool good = r->multi && r->done && r->opened && r->buffer;
    for (int i = 0; good && i < r->t->connections; i++) {
        r->jobs[i].owner = r;
        r->jobs[i].easy = curl_easy_init();
        good = r->jobs[i].easy != NULL;
    }
    return good ? MARCO_OK : base_fail_memory(r->error, HUB_BLOCK, "the download");
}

static void close_run(run *r)
{
    for (int i = 0; i < r->t->connections; i++) {
        job *j = &r->jobs[i];
        if (r->multi && j->easy)
            curl_multi_remove_handle(r->multi, j->easy);
        curl_easy_cleanup(j->easy);
        hub_reply_clear(&j->reply);
        base_free(j->url);
        release(j);
    }
    curl_multi_cleanup(r->multi);
    for (size_t i = 0; i < r->t->n; i++)
        hub_blob_close(&r->t->blobs[i]);
    base_free(r->done);
    base_free(r->opened);
    base_free(r->buffer);
}

marco_status hub_transfer_run(const hub_transfer *transfer, marco_error *error)
{
    marco_error local = {0};
    run *r = base_calloc(1, sizeof *r);
    if (!r)
        return base_fail_memory(error, sizeof *r, "the download");
    r->t = transfer;
    r->error = error ? error : &local;
    r->reported = r->kept = base_now();
    marco_status status = open_run(r);
    while (!status && r->first < transfer->n)
        status = step(r);
    close_run(r);
    base_free(r);
    return status;
}
