/* The settings of a recipe in one table: what reads, writes and compares recipes goes by it. */
#ifndef TRAIN_RECIPE_TABLE_H
#define TRAIN_RECIPE_TABLE_H

#include "train/recipe.h"

typedef enum setting_kind {
    SETTING_INT32,
    SETTING_INT64,
    SETTING_REAL,
    SETTING_BOOL,
    SETTING_CHOICE,   /* one of names; an enum, or an int32_t */
    SETTING_SWITCH,   /* one of two names: a bool */
    SETTING_PATTERNS, /* strings, kept as they are */
    SETTING_OTHER,    /* "model" and "data.sources", read by recipe.c */
} setting_kind;

typedef struct setting_name {
    const char *name; /* NULL ends the list */
    int32_t value;
} setting_name;

typedef struct setting {
    const char *key;
    setting_kind kind;
    size_t offset;    /* in train_recipe */
    double low, high; /* of numbers */
    const setting_name *names;
    bool required;   /* where the file and the overrides have to say it */
    bool may_differ; /* when a run goes on */
} setting;

/* What was given. */
typedef struct recipe_given {
    const char *file; /* for messages */
    json_t *values;   /* "optimizer.lr": 1e-4, ...; model and data.sources as they are */
    json_t *set;      /* the keys among them that an override gave */
} recipe_given;

/* Where a key's value came from, for messages. */
const char *recipe_origin(const recipe_given *g, const char *key);

/* Refuses a given setting that another one switches off, saying what to set (recipe_effect.c). What
 * an override switches off loses what the file says about it. */
marco_status recipe_check_effects(train_recipe *recipe, const recipe_given *g, marco_error *error);

/* In the order of the written recipe; a NULL key ends each. The second is for "model" where that is
 * an object: the shape of random numbers. */
extern const setting recipe_settings[], recipe_model_settings[];

void recipe_defaults(train_recipe *recipe); /* where 0 is not */

const setting *recipe_find(const char *key); /* NULL where there is none */
/* Do keys begin with this one and a point? */
bool recipe_is_section(const char *key);
/* The key that was meant, surely: the same name in another place, or a few letters off; or NULL. */
const char *recipe_nearest(const char *key);

#endif
