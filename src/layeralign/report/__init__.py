"""Figures for people: a terminal table, a chart, a page."""
