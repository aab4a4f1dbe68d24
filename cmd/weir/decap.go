package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"github.com/urfave/cli/v2"

	"weir/dataplane/decap"
)

func decapCommand() *cli.Command {
	return &cli.Command{
		Name:  "decap",
		Usage: "on a backend: strip the tunnel header of mode ipip",
		Description: "Runs in the foreground on a backend of a service with mode ipip. Packets that\n" +
			"weir has tunnelled to this host reach its kernel without their outer header,\n" +
			"by XDP, so no tunnel device is needed. Each VIP has to be on lo as well:\n" +
			"ip addr add VIP/32 dev lo",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "interface", Aliases: []string{"i"}, Required: true, Usage: "`NIC` on which tunnelled packets arrive"},
			&cli.StringSliceFlag{Name: "vip", Required: true, Usage: "inner destination `ADDRESS`; may be given several times"},
			&cli.StringSliceFlag{Name: "from", Usage: "believe outer sources in `PREFIX` only; may be given several times"},
			&cli.BoolFlag{Name: "generic", Usage: "use generic XDP, for NICs whose driver has no native XDP"},
		},
		Action: runDecap,
	}
}

func runDecap(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	opt := decap.Options{Interface: c.String("interface"), Generic: c.Bool("generic"), Log: log}
	for _, v := range c.StringSlice("vip") {
		a, err := netip.ParseAddr(v)
		if err != nil {
			return fmt.Errorf("--vip: %w", err)
		}
		opt.VIPs = append(opt.VIPs, a)
	}
	for _, v := range c.StringSlice("from") {
		p, err := parsePrefix(v)
		if err != nil {
			return fmt.Errorf("--from: %w", err)
		}
		opt.Sources = append(opt.Sources, p)
	}
	d, err := decap.New(opt)
	if err != nil {
		return err
	}
	defer d.Close()
	log.Info("stripping tunnel headers", "interface", opt.Interface, "mode", d.Mode(), "vips", opt.VIPs)
	if err := d.Run(c.Context); err != nil && c.Context.Err() == nil {
		return err
	}
	counters, err := d.Counters()
	if err != nil {
		return err
	}
	s := counters.Stripped
	log.Info("stopped", "stripped", s.IPv4InIPv4+s.IPv6InIPv6+s.IPv4InIPv6+s.IPv6InIPv4, "dropped_ecn", counters.Dropped.ECN)
	return nil
}

// parsePrefix takes an address for the prefix that holds nothing else.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}
