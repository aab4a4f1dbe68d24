// Package containerlab is six labs that a network engineer deploys with containerlab as
// they are, and the test that does so.
//
// The problem it solves: what is shown in network namespaces of our own making has to
// hold with the tool, the containers and the routers that others have. The test deploys
// each lab with the real containerlab and Docker, runs the lab's own check, and destroys
// it. setup.sh and images.sh see to containerlab, Docker and the nodes' images where they
// are not there; `make test-containerlab` does all of it. The folder inetaf is a module
// of its own, of which only the build of containerlab knows.
package containerlab
