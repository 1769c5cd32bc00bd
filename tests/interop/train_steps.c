/* Takes the training steps that a job describes, from a checkpoint's weights, for train.py:
 *
 *   train_steps CHECKPOINT VECTOR.json FOLDER
 *
 * writes the first step's gradients to FOLDER/model.safetensors, by the names of the checkpoint's
 * tensors, and prints a line of JSON for every step. */
#include <stdio.h>

#include "format/json.h"
#include "format/safetensors.h"
#include "marco/train.h"
#include "train_job.h"

enum { FILE_LIMIT = 1 << 24, THREADS = 2 };

static void describe(safetensors_writer *w, const train_params *params, const train_param *param)
{
    const model_tensor *t = &param->tensor;
    for (int64_t mat = 0; mat < param->mats; mat++) {
        char name[128];
        model_tensor_hf_name(&params->config, t, mat, name);
        if (model_role_is_vector(t->role))
            safetensors_put_tensor(w, name, TENSOR_F32, 1, &t->cols);
        else
            safetensors_put_tensor(w, name, TENSOR_F32, 2, (int64_t[]){t->rows, t->cols});
    }
}

static marco_status write_gradients(const train_params *params, const char *folder,
                                    marco_error *error)
{
    safetensors_writer *w;
    marco_status status = safetensors_writer_create(folder, UINT64_MAX, &w, error);
    if (status)
        return status;
    for (size_t i = 0; i < params->n; i++)
        describe(w, params, &params->items[i]);
    status = safetensors_writer_begin(w, error);
    for (size_t i = 0; i < params->n; i++) {
        const train_param *param = &params->items[i];
        size_t bytes = (size_t)train_param_matrix(param) * sizeof(float);
        for (int64_t mat = 0; mat < param->mats && !status; mat++)
            status = safetensors_writer_data(w, train_grad(params, param, mat), bytes, error);
    }
    if (status) {
        safetensors_writer_abort(w);
        return status;
    }
    return safetensors_writer_commit(w, error);
}

static marco_status run(train_job *job, int64_t steps, const char *folder, marco_error *error)
{
    marco_status status = MARCO_OK;
    for (int64_t i = 0; i < steps && !status; i++) {
        train_job_losses losses;
        double norm;
        status = train_job_back(job, i, &losses, error);
        if (!status && i == 0)
            status = write_gradients(job->params, folder, error);
        if (!status)
            status = train_job_update(job, &norm, error);
        if (!status)
            printf("{\"loss\": %.9g, \"balance\": %.9g, \"z\": %.9g, \"norm\": %.9g}\n",
                   losses.loss, losses.balance, losses.z, norm);
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: train_steps CHECKPOINT VECTOR.json FOLDER\n", stderr);
        return 2;
    }
    marco_error error = {0};
    json_t *vector = NULL;
    train_job *job = NULL;
    marco_train_prepare();
    marco_status status = format_json_file(argv[2], FILE_LIMIT, &vector, &error);
    const json_t *description = json_object_get(vector, "job");
    if (!status)
        status = train_job_open(description, argv[1], THREADS, false, &job, &error);
    if (!status)
        status =
            run(job, json_integer_value(json_object_get(description, "steps")), argv[3], &error);
    if (status)
        fprintf(stderr, "train_steps: %s\n", error.message);
    train_job_close(job);
    json_decref(vector);
    return status ? 1 : 0;
}
