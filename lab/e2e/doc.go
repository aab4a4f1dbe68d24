// Package e2e has nothing but tests: they run the weir binary in a network of
// real kernels, with real servers behind it and real clients before it.
//
// The problem it solves: each part of weir has tests of its own, and a user has
// none of the parts but all of them together, on a kernel that answers, forgets
// and interferes as it likes. So these tests know no more than a user does: the
// configuration file, the commands, the api, and what clients and backends see.
//
// They need root and skip without; where the environment variable CI is "true",
// they fail instead.
package e2e
