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
