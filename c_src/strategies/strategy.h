/*
 * How a backend is chosen: by one of several strategies. Each is a struct strategy in a
 * file of its own, in which alone its name stands. It is declared below, and listed in
 * strategy.c: whoever offers strategies, measures or tests them goes through that list.
 *
 * The pool says which backends there are to choose among, and tells a strategy when there
 * is one more or less. A strategy may keep an order of them. There is one order of those
 * that are ready and another of those that are suspended, and a backend is in one of the
 * two or in none. What has to be known of a backend for its place in the order lies
 * in its candidate, so that entering and leaving need no memory and cannot fail.
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef STRATEGY_H
#define STRATEGY_H

#include <stddef.h>
#include <stdint.h>

#include "containers/ring.h"
#include "containers/slots.h"
#include "containers/splitmix.h"
#include "containers/tree.h"
#include "text.h"

enum { STRATEGY_KEYBYTES = RING_KEYBYTES };

/* A place in a queue that is a circle. */
struct turn {
	struct turn *before, *after;
};

/* A backend, as strategies see it. */
struct candidate {
	struct text jid;
	int8_t priority;    /* -128 to 127; the module has none chosen whose priority is negative */
	uint64_t since;     /* the lower, the longer it has been in its state; no two have the same */
	uint64_t last_turn; /* which of all turns it had last, or 0 if none yet; for round_robin */
	size_t position;    /* in the array of all candidates */
	union {             /* its place in the order that the strategy in use keeps, while it is in one */
		struct turn turn;
		struct tree_node rank;
	};
	struct ring_member points; /* likewise, apart from these, as two strategies can be in use: see `lasting` */
};

/* What a strategy keeps of the candidates of one state. Only what belongs to the strategy in use is in use. */
struct order {
	struct turn turns; /* the circle's end, which is nobody's place */
	struct tree ranks;
	struct ring ring;
};

/* What a strategy keeps of all candidates, whatever their state. */
struct chooser {
	uint8_t key[STRATEGY_KEYBYTES];
	uint64_t random_state;
	uint64_t turns; /* how many have been given so far */
};

/* What one choice is among: the candidates of one state but `excepted`. There is at least one. */
struct choices {
	const struct slots *candidates; /* all there are, those of one state side by side */
	size_t start, count;            /* where those of that state begin, and how many they are */
	struct candidate *excepted;     /* one of these, or NULL */
	struct order *order;            /* of that state */
};

/* The load of a backend, by any measure. */
typedef size_t backend_load(void *context, struct text jid);

/* What a backend is wanted for; all zero is nothing in particular. */
struct request {
	struct text requester; /* a JID, or none */
	struct text service;   /* the address that was asked, or none */
	backend_load *load;    /* not NULL if the strategy needs it; it leaves the pool alone */
	void *context;         /* of `load` */
};

/* A function that is NULL has nothing to do in this strategy; `pick` is never NULL. */
struct strategy {
	const char *name; /* as an operator writes it */
	int needs_load;   /* whether a request has to have a `load` */
	/*
	 * The strategy that chooses for what belongs together, and has to come to the same candidate time and again: a
	 * conversation, an exchange of several stages. NULL: this one, as it always comes to the same. Otherwise the
	 * two use different parts of candidates and orders, and that one has nothing to prepare.
	 */
	const struct strategy *lasting;
	/* Makes the order, which nobody is in, ready for use by this strategy, which takes another one's place. */
	void (*prepare)(struct chooser *chooser, struct order *order);
	/* The candidate, whose fields are set, becomes one of the order's. Strategies that have this in common keep the
	 * same order. */
	void (*enter)(struct chooser *chooser, struct order *order, struct candidate *candidate);
	/* The candidate, which is one of the order's, is that no longer. */
	void (*leave)(struct order *order, struct candidate *candidate);
	/* The priority of the candidate, which is one of the order's, has changed: it has the new one already. */
	void (*reprioritise)(struct order *order, struct candidate *candidate);
	/* One of the choices. */
	struct candidate *(*pick)(struct chooser *chooser, const struct choices *choices, const struct request *request);
};

extern const struct strategy strategy_random;
extern const struct strategy strategy_round_robin;
extern const struct strategy strategy_least_pending;
extern const struct strategy strategy_primary;
extern const struct strategy strategy_sender;
extern const struct strategy strategy_recipient;

/* All of these; behind the last one is a NULL. */
extern const struct strategy *const strategies[];

/* Makes an order that nobody is in of one that is all zero. 0, or -1 if there is no memory; either can be freed. */
int order_init(struct order *order);

/* Frees what any strategy has made of an order, which nobody is in. */
void order_free(struct order *order);

/* How many choices there are. */
static inline size_t choices_count(const struct choices *choices)
{
	return choices->count - (choices->excepted != NULL);
}

/* The choice with that number, which counts from 0. */
static inline struct candidate *choices_at(const struct choices *choices, size_t number)
{
	size_t position = choices->start + number;

	if (choices->excepted != NULL && position >= choices->excepted->position) {
		position++;
	}
	return *slots_at(choices->candidates, position);
}

#endif
